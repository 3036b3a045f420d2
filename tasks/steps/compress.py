"""Variants: each step of a variant is remembered by its own key, so that variants which begin alike share what they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.methods.registry import Inputs
from recompress.methods.steps import Step
from recompress.records import DatasetRef, ModelRef
from tasks.data.bring import examples_of, unlabelled_of
from tasks.running.line import line
from tasks.running.recompression import Recompression
from tasks.running.step_keys import step_key
from tasks.running.threads import threads_held
from tasks.steps.train import make_teacher_outputs

if TYPE_CHECKING:
    from recompress.training.teacher_outputs import TeacherOutputs


def compress_all(run: Recompression, names: Iterable[str], baseline: ModelRef, dataset: DatasetRef) -> list[ModelRef]:
    """Variants in the recipe's order. Where work is shared, others have done what was missing before each is asked for, and it is found."""
    names = list(names)
    if run.ahead is not None:
        run.ahead(run, names, baseline, dataset)
    variants: list[ModelRef] = []
    for name in names:
        variants.append(compress(run, name, [baseline, *variants], dataset))
    return variants


@line("compress {variant}")
def compress(run: Recompression, variant: str, models: Sequence[ModelRef], dataset: DatasetRef) -> ModelRef:
    """The steps of one variant, in order, each from the model that the one before it left. ``models`` are the baseline and the variants before this one."""
    model = models[0]
    for i, step in enumerate(run.plan.steps[variant], start=1):
        model = compress_step(run, variant, i, step, model, models, dataset)
    return model.model_copy(update={"name": variant})


def compress_step(run: Recompression, variant: str, number: int, step: Step, model: ModelRef, models: Sequence[ModelRef], dataset: DatasetRef) -> ModelRef:
    """One step: run by the core's runner, which saves, reads back and proves; kept in MLflow with its claims."""
    benchmark = run.plan.recipe.measured_on
    name = f"{variant}/{number} {step.method}"
    others = {"teacher": _teacher_of(step, models), "base": run.base}
    needed = {need: other for need, other in others.items() if need in step.needs and other is not None}
    dataset = _text_for(step, dataset, run.plan.recipe.seed)
    taught = make_teacher_outputs(run, dataset, needed["teacher"]) if "teacher" in needed else None

    def do(folder: Path) -> tuple[dict[str, object], dict[str, Path]]:
        from recompress.methods.runner import run_step

        inputs = Inputs(
            benchmark=benchmark,
            train=examples_of(dataset, "train"),
            dev=examples_of(dataset, "dev"),
            seed=run.seed,
            workdir=folder / "work",
            unlabelled=unlabelled_of(dataset),
            teacher=_read_teacher(run, taught),
            teacher_model=run.store.fetch(needed["teacher"].uri) if "teacher" in needed else None,
            base=Path(needed["base"].uri) if "base" in needed else None,
            curve=run.curve(variant, f"{number}_{step.method}"),
            label=name,
        )
        with threads_held():
            report = run_step(step.method, step.config, run.store.fetch(model.uri), folder / "model", inputs)
        return {"claims": list(report.claims), "runtime": step.gives}, {"model": folder / "model"}

    key = step_key(
        step.method,
        modules=[step.module, "recompress.methods.runner", type(benchmark).__module__],
        config=step.as_json,
        inputs=[model.sha256, *dataset.text_digests, *(taught or ())[1:], *(other.sha256 for other in needed.values())],
        seed=run.seed,
    )
    measures_time = getattr(step.config, "latency", None) is not None
    result = run.step(name, key=key, run=variant, do=do, alone=measures_time)
    run.claims.setdefault(variant, []).append({"method": step.method, "claims": result["claims"]})
    place = result["artifacts"]["model"]
    return ModelRef(name=variant, kind="variant", uri=place["uri"], sha256=place["sha256"], runtime=result["runtime"], steps=(*model.steps, step.method))


def _text_for(step: Step, dataset: DatasetRef, seed: int) -> DatasetRef:
    """The data set with as much unlabelled text as a step asks for: what it does not learn from, no teacher need be asked about."""
    at_most = getattr(step.config, "unlabelled", None)
    return dataset if at_most is None else dataset.model_copy(update={"unlabelled_draw": (at_most, seed)})


def _teacher_of(step: Step, models: Sequence[ModelRef]) -> ModelRef:
    """The variant that a step names as its teacher, or the baseline."""
    return {model.name: model for model in models}[getattr(step.config, "teacher", None) or models[0].name]


def _read_teacher(run: Recompression, outputs: tuple[str, str] | None) -> TeacherOutputs | None:
    if outputs is None:
        return None
    from recompress.training.teacher_outputs import TeacherOutputs

    return TeacherOutputs.load(run.store.fetch(outputs[0]))
