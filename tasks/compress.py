"""Variants: each step of a variant is remembered by its own key, so that variants which begin alike share what they share."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from recompress.benchmarks import get_benchmark
from recompress.fingerprint import step_key
from recompress.method import Inputs, get_method
from recompress.recipe import Step
from recompress.records import DatasetRef, ModelRef
from tasks.data import examples_of, unlabelled_of
from tasks.recompression import Recompression
from tasks.train import text_digests

Teacher = tuple[str, str] | None


@task(task_run_name="compress {variant}", cache_policy=NO_CACHE, persist_result=False)
def compress(run: Recompression, variant: str, baseline: ModelRef, dataset: DatasetRef, teacher: Teacher) -> ModelRef:
    """The steps of one variant, in order, each from the model that the one before it left."""
    model = baseline
    for i, step in enumerate(run.plan.steps[variant], start=1):
        model = compress_step(run, variant, i, step, model, baseline, dataset, teacher)
    return model.model_copy(update={"name": variant})


def compress_step(
    run: Recompression, variant: str, number: int, step: Step, model: ModelRef, baseline: ModelRef, dataset: DatasetRef, teacher: Teacher
) -> ModelRef:
    """One step: run by the core's runner, which saves, reads back and proves; kept in MLflow with its claims."""
    method = get_method(step.method)
    benchmark = get_benchmark(run.plan.recipe.benchmark)
    name = f"{variant}/{number} {step.method}"
    taught = teacher if "teacher" in method.needs else None
    others = {"teacher": baseline, "base": run.base}
    needed = {need: other for need, other in others.items() if need in method.needs and other is not None}

    def do(folder: Path) -> tuple[dict[str, object], dict[str, Path]]:
        from recompress.compression import run_step

        inputs = Inputs(
            benchmark=benchmark,
            train=examples_of(dataset, "train"),
            dev=examples_of(dataset, "dev"),
            seed=run.plan.recipe.seed,
            workdir=folder / "work",
            unlabelled=unlabelled_of(dataset),
            teacher=_read_teacher(run, taught),
            teacher_model=run.store.fetch(needed["teacher"].uri) if "teacher" in needed else None,
            base=Path(needed["base"].uri) if "base" in needed else None,
            curve=run.curve(variant, f"{number}_{step.method}"),
            label=name,
        )
        report = run_step(step.method, step.config, run.store.fetch(model.uri), folder / "model", inputs)
        return {"claims": list(report.claims), "runtime": method.gives}, {"model": folder / "model"}

    key = step_key(
        step.method,
        modules=[method.run.__module__, "recompress.compression", type(benchmark).__module__],
        config=step.as_json,
        inputs=[model.sha256, *text_digests(dataset), *(taught or ())[1:], *(other.sha256 for other in needed.values())],
        seed=run.plan.recipe.seed,
    )
    kept = run.step(name, key=key, run=variant, do=do)
    run.claims.setdefault(variant, []).append({"method": step.method, "claims": kept["claims"]})
    place = kept["artifacts"]["model"]
    return ModelRef(name=variant, kind="variant", uri=place["uri"], sha256=place["sha256"], runtime=kept["runtime"], steps=(*model.steps, step.method))


def _read_teacher(run: Recompression, teacher: Teacher):  # type: ignore[no-untyped-def]
    if teacher is None:
        return None
    from recompress.distillation.teacher import TeacherOutputs

    return TeacherOutputs.load(run.store.fetch(teacher[0]))
