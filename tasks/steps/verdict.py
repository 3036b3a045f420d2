"""One finalist before the gate: its look taken, everything compared, the look's result recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recompress.benchmarks import get_benchmark
from recompress.errors import IntegrityError
from recompress.gate import Again, Expected, Measured, is_proven, judge, read_measured
from recompress.gate.levels import Past, ladders_of
from recompress.records import DatasetRef, Evaluation, ModelRef, Trial, Verdict
from tasks.ledger.access import recorded_policy
from tasks.ledger.looks import Named, look_key, record_result, take_look
from tasks.running.recompression import Recompression
from tasks.steps.accepted import Accepted
from tasks.steps.trainings import Trained
from tasks.tracking.track import check


@dataclass(frozen=True)
class Beside:
    """What every finalist of a run is judged beside; read once for all of them."""

    dataset: DatasetRef
    groups: int
    """Groups in the test split; 0 where the data names none."""
    named: Named
    finalists: tuple[str, ...]
    """Their digests, as the ledger holds them."""
    baseline: ModelRef
    champion_sha256: str | None
    measured: dict[str, Measured]
    """Finalists, baseline and champion, by the names of their evaluations."""
    accepted: Accepted
    accepted_measured: Measured | None
    trained: Sequence[Trained]
    spent_loss: float | None

    @property
    def champion(self) -> Measured | None:
        """Found among the evaluations by its bytes, whatever it is called there."""
        if self.champion_sha256 is None:
            return None
        return next((model for model in self.measured.values() if model.evaluation.model_sha256 == self.champion_sha256), None)


def judge_one(run: Recompression, trial: Trial, beside: Beside) -> Verdict:
    """The verdict on one finalist, at the level of its look."""
    benchmark, baseline = get_benchmark(run.plan.recipe.benchmark), beside.measured.get(beside.baseline.name)
    again = [Again(t.seed, measured_of(run, t.finalists[trial.name]), measured_of(run, t.baseline)) for t in beside.trained]
    compared = [beside.measured.get(trial.name), baseline, beside.champion, *(model for one in again for model in (one.candidate, one.baseline))]
    past = look_for(run, trial, beside, compared)
    verdict = judge(
        run.plan.policy,
        lambda totals: benchmark.metrics(totals, beside.dataset.labels),
        candidate=beside.measured[trial.name],
        baseline=baseline,
        champion=beside.champion,
        accepted_baseline=beside.accepted_measured,
        spent_loss=beside.spent_loss,
        expected=expected_of(run, trial, beside, past),
        look=past.look,
        again=again,
    )
    if verdict.losses:  # where nothing could be compared the look stays open, and is finished once that is mended
        record_result(run.ledger, past.look, verdict, proven=is_proven(verdict))
    return verdict


def expected_of(run: Recompression, trial: Trial, beside: Beside, past: Past) -> Expected:
    """What everything that is measured has to be."""
    return Expected(
        policy_sha256=recorded_policy(run.ledger, run.plan),
        dataset_sha256=beside.dataset.sha256,
        split_sha256=beside.named.split,
        finalists=beside.finalists,
        refused_before=past.proven is False,
        examples=beside.dataset.rows["test"],
        groups=beside.groups,
        candidate_sha256=trial.sha256,
        baseline_sha256=beside.baseline.sha256,
        champion_sha256=beside.champion_sha256,
        accepted_baseline_sha256=beside.accepted.sha256,
        baseline_accepted_by=beside.accepted.by,
        trainings=tuple((t.finalists[trial.name].model_sha256, t.baseline.model_sha256) for t in beside.trained),
    )


def look_for(run: Recompression, trial: Trial, beside: Beside, compared: Sequence[Measured | None]) -> Past:
    """The look of one finalist, recorded before it is judged."""
    model, policy = run.plan.recipe.register_.model, run.plan.policy
    digests = [(m.evaluation.model_sha256, m.evaluation.predictions_sha256) for m in compared if m is not None]
    return take_look(
        run.ledger,
        key=look_key(model, beside.named.split, policy.sha256, digests),
        model=model,
        split=beside.named.split,
        candidate_sha256=trial.sha256,
        ladders=ladders_of((trial.place or 1) - 1, len(beside.finalists)),
        alpha=policy.alpha,
    )


def measured_of(run: Recompression, evaluation: Evaluation) -> Measured:
    """A model's counts, from predictions that are what its evaluation says. Raises ``IntegrityError``."""
    place = run.store.fetch(evaluation.predictions_uri)
    try:
        check(place, evaluation.predictions_sha256)
    except IntegrityError as error:
        raise IntegrityError(f"the predictions of {evaluation.model} were altered: {error}") from None
    return read_measured(evaluation, place)
