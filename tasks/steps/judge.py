"""Judging: the present champion, and the verdict on every variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recompress.errors import IntegrityError
from recompress.evidence.dossier import committed_plans, origin_of
from recompress.gate import choose
from recompress.integrity.digest import sha256_json
from recompress.ledger import Ledger
from recompress.promotion import HEAD_TAG, Promoter, progress_of
from recompress.promotion.registry import tags_of
from recompress.promotion.states import PLAN_KINDS
from recompress.records import DatasetRef, Evaluation, ModelRef, Verdict
from tasks.data.bring import examples_of
from tasks.ledger.access import actor
from tasks.ledger.looks import Named, check_looks, named_finalists
from tasks.running.line import line
from tasks.running.recompression import Recompression
from tasks.running.step_keys import step_key
from tasks.steps.accepted import Accepted, accepted_baseline
from tasks.steps.settled import JUDGED, key_then
from tasks.steps.trainings import Trained
from tasks.steps.verdict import Beside, judge_one, measured_of
from tasks.tracking.registry import champion_of, open_registry
from tasks.tracking.track import Result


@dataclass(frozen=True)
class Champion:
    """The model in production now; ``version`` is empty when there is none."""

    version: str = ""
    sha256: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    """What its version's tags must say, by the ledger; what MLflow says they are is not asked."""
    models: tuple[ModelRef, ...] = ()
    """The champion as a model to evaluate; empty when one of the variants has the same bytes, because it is evaluated anyway."""


@dataclass(frozen=True)
class Judgement:
    """What the gate said of every variant, and which one it chose. ``evidence`` is the digest of everything that was looked at."""

    verdicts: dict[str, Verdict]
    chosen: str | None
    evidence: str
    named: Named
    """Who was to be judged, and what they were chosen by."""
    key: str
    """Of the step by which the verdicts were reached."""
    accepted: Accepted = Accepted()
    """The baseline behind the last promotion, as the verdicts saw it."""
    baseline_uri: str = ""
    """Where the present baseline lies."""


@line("present champion")
def present_champion(run: Recompression, variants: Sequence[ModelRef]) -> Champion:
    """Who is to be beaten. Raises ``IntegrityError`` when it is not what the ledger promoted; what a killed promotion left open is finished or undone first.

    From here until the end of the run no other recipe judges for the same model: it would be judged against a champion that is about to be replaced."""
    model = run.plan.recipe.register_.model
    run.hold(f"model {model}", f"judging for model {model}")
    Promoter(run.ledger, open_registry(run.store), actor()).settle(model)
    return champion_among(run, variants)


def champion_among(run: Recompression, variants: Sequence[ModelRef]) -> Champion:
    """Who is champion by the registry, as the ledger promoted it. Raises ``IntegrityError`` for a version that it did not promote; nothing is written."""
    champion = champion_of(run.store, run.plan.recipe.register_.model)
    if champion is None:
        return Champion()
    sha256, tags = promoted_as(run.ledger, run.plan.recipe.register_.model, champion.version)
    same = any(model.sha256 == sha256 for model in variants)
    model = ModelRef(name="champion", kind="variant", uri=champion.model_uri, sha256=sha256)
    return Champion(champion.version, sha256, tags, () if same else (model,))


def promoted_as(ledger: Ledger, name: str, version: str) -> tuple[str, dict[str, str]]:
    """The digest of a version's model and what its tags were made to say, by the ledger. Raises ``IntegrityError`` for a version that it did not promote."""
    chain = ledger.entries(*PLAN_KINDS, model=name)
    promotions = [progress for progress in committed_plans(chain, name) if progress.said("promotion-committed")["version"] == version]
    if not promotions:
        raise IntegrityError(f"version {version} of {name} is champion, but this ledger promoted no such version; `recompress audit verify` tells more")
    latest = promotions[-1]
    return latest.plan.model_sha256, {**tags_of(origin_of(chain, latest).plan), HEAD_TAG: str(latest.entries[-1].head)}


@line("judge")
def judge_all(
    run: Recompression,
    dataset: DatasetRef,
    baseline: ModelRef,
    named: Named,
    evaluations: Sequence[Evaluation],
    champion: Champion,
    trained: Sequence[Trained] = (),
) -> Judgement:
    """A verdict on every finalist in their order, against the baseline and the champion, and the choice among those that passed."""
    policy = run.plan.policy
    again = [evaluation for training in trained for evaluation in (training.baseline, *training.finalists.values())]
    evidence = sha256_json([run.plan.sha256, policy.sha256, dataset.sha256, *(e.digest for e in [*evaluations, *again] if e.model != "champion")])
    same, then = champion.tags.get("recompress.evidence") == evidence, champion.tags.get("recompress.judged_against", "")
    accepted = accepted_baseline(run, dataset, baseline, champion.version if not same else then or None)

    def key_against(version: str, accepted: Accepted) -> str:
        inputs = [evidence, named.key, version, *accepted.inputs]
        return step_key("verdicts", modules=["recompress.gate"], config=policy.as_json(), inputs=inputs, seed=policy.seed)

    settled = key_then(run, "verdicts", key_against(then, accepted), champion.tags, JUDGED) if same else ""
    if same and not settled:  # what was judged then is lost: judged anew, beside the champion that came of it
        accepted = accepted_baseline(run, dataset, baseline, champion.version)
    key = settled or key_against(champion.version, accepted)

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        from recompress.measure.quality import group_numbers

        measured = {e.model: measured_of(run, e) for e in evaluations}
        beside = Beside(
            dataset=dataset,
            groups=len(set(group_numbers(examples_of(dataset, "test")) or ())),
            named=named,
            finalists=named_finalists(run.ledger, named.key),
            baseline=baseline,
            champion_sha256=champion.sha256,
            measured=measured,
            accepted=accepted,
            accepted_measured=measured_of(run, accepted.evaluation) if accepted.evaluation else None,
            trained=trained,
            spent_loss=spent_loss(run, champion),
        )
        verdicts = [judge_one(run, trial, beside) for trial in named.selection.finalists]
        return {"verdicts": [verdict.as_json() for verdict in verdicts]}, {}

    result = run.step(
        "verdicts",
        key=key,
        run="",
        do=do,
        label=f"{len(named.selection.finalists)} finalists against the baseline" + (" and the champion" if champion.version else ""),
    )
    verdicts = [Verdict.model_validate(record) for record in result["verdicts"]]
    check_looks(run.ledger, verdicts, run.plan.recipe.register_.model, named.split)
    for verdict in verdicts:
        run.note("verdict", verdict.digest, {"candidate": verdict.candidate, "passed": verdict.passed, "reasons": list(verdict.reasons), "evidence": evidence})
    return Judgement({verdict.candidate: verdict for verdict in verdicts}, choose(policy, verdicts), evidence, named, key, accepted, baseline.uri)


def spent_loss(run: Recompression, champion: Champion) -> float | None:
    """What the promotions so far have lost together, as the ledger says of the champion's own; ``None`` (a refusal) when it does not say.

    Where nothing is champion any more, because somebody took the alias away, it is what the last promotion said: the budget does not begin again.
    """
    of_champion = {"version": champion.version} if champion.version else {}
    committed = run.ledger.entries("promotion-committed", model=run.plan.recipe.register_.model, **of_champion)
    if not champion.version and not committed:
        return 0.0
    for entry in reversed(committed):
        progress = progress_of(run.ledger, entry.body["plan"])
        if progress.plan.kind == "promotion":
            spent = progress.said("promotion-judged").get("spent_loss_after")
            return None if spent is None else float(spent)
    return None
