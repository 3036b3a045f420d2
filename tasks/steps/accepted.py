"""The baseline behind the last promotion, measured on the present test split: what a new baseline is held against.

Where the split is the one that it was judged on, its predictions of then are fetched and checked. Where the split is another, its model answers the present one,
if its files are still there and are what they were; two figures from two splits are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from recompress.errors import RecompressError
from recompress.promotion.accepted import accepted_by, plan_behind
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.ledger.keys import approvers
from tasks.people.baselines import baseline_behind
from tasks.running.recompression import Recompression
from tasks.steps.evaluate import measure_quality
from tasks.tracking.track import check

NAME = "accepted-baseline"


@dataclass(frozen=True)
class Accepted:
    """``evaluation`` is ``None`` where it is the present baseline itself, or cannot be measured; ``by`` says who let the new one count all the same."""

    sha256: str | None = None
    evaluation: Evaluation | None = None
    by: str = ""

    @property
    def inputs(self) -> list[str]:
        """What a verdict depends on; nothing where nothing was promoted before."""
        return [] if self.sha256 is None else [self.sha256, self.evaluation.digest if self.evaluation else "", self.by]


def accepted_baseline(run: Recompression, dataset: DatasetRef, baseline: ModelRef, version: str | None) -> Accepted:
    """The baseline behind the promotion of ``version`` (of the last one when ``""``), by the ledger. ``None`` says that nothing was promoted by then."""
    model, policy = run.plan.recipe.register_.model, run.plan.policy
    plan = plan_behind(run.ledger, model, version) if version is not None else None
    if plan is None:
        return Accepted()
    sha256, dossier, trouble = baseline_behind(run.memory, plan)
    if sha256 == baseline.sha256:
        return Accepted(sha256)
    if trouble:
        run.say(f"what was kept of the baseline behind the last promotion is not to be had: {trouble}")
    before = dossier.evaluation("baseline") if dossier else None
    signed = policy.approval.signed
    by = accepted_by(run.ledger, model, baseline.sha256, sha256, signers=approvers(run.root) if signed else {}, signed=signed)
    evaluation = _measured_then(run, dataset, before) or _measured_now(run, dataset, dossier.baseline_uri if dossier else "", sha256)
    return Accepted(sha256, evaluation, by)


def _measured_then(run: Recompression, dataset: DatasetRef, before: Evaluation | None) -> Evaluation | None:
    """Its evaluation of then, where that was on the present data and its predictions are there."""
    if before is None or before.dataset_sha256 != dataset.sha256 or set(before.slices) != set(dataset.slices):
        return None
    try:
        check(run.store.fetch(before.predictions_uri), before.predictions_sha256)
    except (RecompressError, OSError) as error:
        run.say(f"the predictions of the baseline behind the last promotion are not what they were: {error}")
        return None
    return before


def _measured_now(run: Recompression, dataset: DatasetRef, uri: str, sha256: str) -> Evaluation | None:
    """Its model's answers to the present test split; ``None`` where its files are gone or are not what they were."""
    if not uri:
        return None
    try:
        check(run.store.fetch(uri), sha256)
    except (RecompressError, OSError) as error:
        run.say(f"the baseline behind the last promotion cannot answer the present test split: {error}")
        return None
    accepted = ModelRef(name=NAME, kind="baseline", uri=uri, sha256=sha256)
    quality = measure_quality(run, accepted, dataset, accepted)
    predictions = quality["artifacts"]["predictions"]
    return Evaluation(
        model=NAME,
        model_sha256=sha256,
        dataset_sha256=dataset.sha256,
        metrics=quality["metrics"],
        slices=quality["slices"],
        types=quality["types"],
        predictions_uri=predictions["uri"],
        predictions_sha256=predictions["sha256"],
    )
