"""More trainings of the same recipe: baseline and finalists again with other seeds, where the policy asks for them. Each step is remembered like any other.

The seeds follow from the recipe's, so that nobody chooses them after looking. What is trained again is measured for quality on the test split and judged with the
first; it is never promoted, and neither its size nor its speed is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recompress.recipe import Plan
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.running.recompression import Recompression
from tasks.steps.compress import compress_all
from tasks.steps.evaluate import measure_quality, record
from tasks.steps.train import train_baseline


@dataclass(frozen=True)
class Trained:
    """One further training: its seed, and what was measured on its baseline and on each finalist, by the variant's name."""

    seed: int
    baseline: Evaluation
    finalists: dict[str, Evaluation]


def train_again(run: Recompression, dataset: DatasetRef, base: ModelRef, finalists: Sequence[ModelRef]) -> list[Trained]:
    """The second and further trainings of the baseline and of ``finalists``; none where the policy asks for one."""
    count = run.plan.policy.trainings
    if count > 1 and finalists:
        names = needed(run.plan, [model.name for model in finalists])
        run.say(
            f"trainings: {count} of the baseline and of {', '.join(names)}; that takes {count} times the training of one, and the first is the one to promote"
        )
    return [_train(run.again(number), dataset, base, [model.name for model in finalists]) for number in range(2, count + 1) if finalists]


def _train(run: Recompression, dataset: DatasetRef, base: ModelRef, finalists: Sequence[str]) -> Trained:
    baseline = train_baseline(run, dataset, base)
    variants = compress_all(run, needed(run.plan, finalists), baseline, dataset)
    evaluations = {model.name: _measure(run, model, dataset, baseline) for model in [baseline, *variants] if model.name in ("baseline", *finalists)}
    return Trained(run.seed, evaluations.pop("baseline"), evaluations)


def needed(plan: Plan, finalists: Sequence[str]) -> list[str]:
    """The finalists and the variants that teach them, in the recipe's order."""
    wanted = set(finalists)
    for name in reversed(plan.steps):  # a teacher stands above whom it teaches
        if name in wanted:
            wanted |= {str(teacher) for step in plan.steps[name] if (teacher := getattr(step.config, "teacher", None)) is not None}
    return [name for name in plan.steps if name in wanted]


def _measure(run: Recompression, model: ModelRef, dataset: DatasetRef, baseline: ModelRef) -> Evaluation:
    return record(run, model.model_copy(update={"name": run.called(model.name)}), measure_quality(run, model, dataset, baseline), dataset)
