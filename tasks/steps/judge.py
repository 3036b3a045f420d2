"""Judging: the present champion, and the verdict on every variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from recompress.benchmarks import get_benchmark
from recompress.errors import IntegrityError
from recompress.gate import Again, Expected, Measured, choose, judge, read_measured
from recompress.integrity.digest import sha256_json
from recompress.integrity.fingerprint import step_key
from recompress.measure.quality import group_numbers
from recompress.promotion import Promoter, progress_of
from recompress.records import DatasetRef, Evaluation, ModelRef, Verdict
from tasks.data.bring import examples_of
from tasks.ledger.access import actor, recorded_policy
from tasks.running.recompression import Recompression
from tasks.steps.trainings import Trained
from tasks.tracking.registry import champion_of, open_registry
from tasks.tracking.track import Result, check


@dataclass(frozen=True)
class Champion:
    """The model in production now; ``version`` is empty when there is none."""

    version: str = ""
    sha256: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    models: tuple[ModelRef, ...] = ()
    """The champion as a model to evaluate; empty when one of the variants has the same bytes, because it is evaluated anyway."""


@dataclass(frozen=True)
class Judgement:
    """What the gate said of every variant, and which one it chose. ``evidence`` is the digest of everything that was looked at."""

    verdicts: dict[str, Verdict]
    chosen: str | None
    evidence: str
    settled: bool = False
    """The present champion was promoted on this very evidence: there is nothing left to decide."""


@task(task_run_name="present champion", cache_policy=NO_CACHE, persist_result=False)
def present_champion(run: Recompression, variants: Sequence[ModelRef]) -> Champion:
    """Who is to be beaten. Raises ``IntegrityError`` when it is not what the ledger promoted; what a killed promotion left open is finished or undone first."""
    Promoter(run.ledger, open_registry(run.store), actor()).settle(run.plan.recipe.register_.model)
    champion = champion_of(run.store, run.plan.recipe.register_.model)
    if champion is None:
        return Champion()
    same = any(model.sha256 == champion.model_sha256 for model in variants)
    model = ModelRef(name="champion", kind="variant", uri=champion.model_uri, sha256=champion.model_sha256)
    return Champion(champion.version, champion.model_sha256, champion.tags, () if same else (model,))


@task(task_run_name="judge", cache_policy=NO_CACHE, persist_result=False)
def judge_all(
    run: Recompression,
    dataset: DatasetRef,
    baseline: ModelRef,
    variants: Sequence[ModelRef],
    evaluations: Sequence[Evaluation],
    champion: Champion,
    trained: Sequence[Trained] = (),
) -> Judgement:
    """A verdict on every variant, against the baseline and the champion, and the choice among those that passed."""
    policy = run.plan.policy
    again = [evaluation for training in trained for evaluation in (training.baseline, *training.finalists.values())]
    evidence = sha256_json([run.plan.sha256, policy.sha256, dataset.sha256, *(e.digest for e in [*evaluations, *again] if e.model != "champion")])
    settled = champion.tags.get("recompress.evidence") == evidence
    against = champion.tags.get("recompress.judged_against", "") if settled else champion.version

    def do(folder: Path) -> tuple[Result, dict[str, Path]]:
        measured = {e.model: measured_of(run, e) for e in evaluations}
        verdicts = [judge_one(run, dataset, baseline, model, measured, champion, trained) for model in variants]
        return {"verdicts": [verdict.as_json() for verdict in verdicts]}, {}

    key = step_key("verdicts", modules=["recompress.gate"], config=policy.as_json(), inputs=[evidence, against], seed=policy.seed)
    result = run.step(
        "verdicts", key=key, run="", do=do, label=f"{len(variants)} variants against the baseline" + (" and the champion" if champion.version else "")
    )
    verdicts = [Verdict.model_validate(record) for record in result["verdicts"]]
    for verdict in verdicts:
        run.note("verdict", verdict.digest, {"candidate": verdict.candidate, "passed": verdict.passed, "reasons": list(verdict.reasons), "evidence": evidence})
    return Judgement({verdict.candidate: verdict for verdict in verdicts}, choose(policy, verdicts), evidence, settled)


def judge_one(
    run: Recompression,
    dataset: DatasetRef,
    baseline: ModelRef,
    model: ModelRef,
    measured: dict[str, Measured],
    champion: Champion,
    trained: Sequence[Trained] = (),
) -> Verdict:
    """One variant. The present champion is found among the evaluations by its bytes, whatever it is called there."""
    benchmark, tested = get_benchmark(run.plan.recipe.benchmark), group_numbers(examples_of(dataset, "test"))
    beaten = next((m for m in measured.values() if m.evaluation.model_sha256 == champion.sha256), None) if champion.sha256 else None
    expected = Expected(
        policy_sha256=recorded_policy(run.ledger, run.plan),
        dataset_sha256=dataset.sha256,
        examples=dataset.rows["test"],
        groups=len(set(tested or ())),
        candidate_sha256=model.sha256,
        baseline_sha256=baseline.sha256,
        champion_sha256=champion.sha256,
        trainings=tuple((t.finalists[model.name].model_sha256, t.baseline.model_sha256) for t in trained),
    )
    return judge(
        run.plan.policy,
        lambda totals: benchmark.metrics(totals, dataset.labels),
        candidate=measured[model.name],
        baseline=measured.get(baseline.name),
        champion=beaten,
        spent_loss=spent_loss(run, champion),
        expected=expected,
        again=[Again(t.seed, measured_of(run, t.finalists[model.name]), measured_of(run, t.baseline)) for t in trained],
    )


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


def measured_of(run: Recompression, evaluation: Evaluation) -> Measured:
    place = run.store.fetch(evaluation.predictions_uri)
    try:
        check(place, evaluation.predictions_sha256)
    except IntegrityError as error:
        raise IntegrityError(f"the predictions of {evaluation.model} were altered: {error}") from None
    return read_measured(evaluation, place)
