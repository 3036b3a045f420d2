"""The base model, the baseline, and what a teacher says about the training text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example, ShowsExamples, get_benchmark
from recompress.errors import InputError
from recompress.integrity.digest import sha256_directory
from recompress.models.base import architecture_in, check_base, find_base, numbers_of
from recompress.recipe import BaseChoice, Plan, Recipe
from recompress.records import DatasetRef, ModelRef
from recompress.settings.file import SettingsFile
from tasks.data.bring import examples_of, unlabelled_of
from tasks.running.line import line
from tasks.running.recompression import Recompression
from tasks.running.step_keys import step_key
from tasks.running.threads import threads_held


@line("find base")
def find_base_model(run: Recompression) -> ModelRef:
    """The pinned base model as a folder on this machine."""
    directory = _found(run, run.plan.recipe.base)
    check_architectures(run.plan, directory)
    check_graphs_fit(run.plan, directory)
    run.say(f"base: {run.plan.recipe.base.model}")
    run.base = ModelRef(name="base", kind="base", uri=str(directory), sha256=sha256_directory(directory))
    return run.base


def _found(run: Recompression, base: BaseChoice) -> Path:
    """A pinned model, as a folder on this machine."""
    if base.model.startswith("models:/"):
        from tasks.tracking.registry import fetch_model

        name = base.model.removeprefix("models:/").partition("@")[0].partition("/")[0]
        known = run.ledger.last("promotion-committed", model=name)  # one that another project promoted is known by the recipe's digest alone
        directory = fetch_model(run.store, base.model, run.ledger if known else None)
        check_base(directory, base.model, base.sha256)
        return directory
    return find_base(base.model, revision=base.revision, sha256=base.sha256, root=run.root)


def check_architectures(plan: Plan, base: Path) -> None:
    """Raises ``InputError``, before anything is trained, for a step that does not know the architecture of the base."""
    architecture = architecture_in(base)
    for name, steps in plan.steps.items():
        for i, step in enumerate(steps):
            if architecture is not None and architecture not in step.architectures:
                where = SettingsFile(plan.path).where(("variants", name, i, step.method))
                known = ", ".join(step.architectures)
                raise InputError(f"{step.method} does not support the architecture {architecture!r} of the base; it supports {known} ({where})")


def check_graphs_fit(plan: Plan, base: Path) -> None:
    """Raises ``InputError``, before anything is trained, for a variant that would put the whole of a base into a graph that cannot hold it."""
    numbers = numbers_of(base, heads=get_benchmark(plan.recipe.benchmark).head.pretrained)
    for name, steps in plan.steps.items():
        if steps and steps[0].gives == "onnx":
            from recompress.models.onnx_graph import check_fits

            check_fits(numbers, f"variant {name!r} begins with {steps[0].method}, but the base")


@line("train baseline")
def train_baseline(run: Recompression, dataset: DatasetRef, base: ModelRef) -> ModelRef:
    """The fine-tuned, uncompressed model that everything is compared with; trained, or taken as it is where the recipe names one."""
    recipe = run.plan.recipe
    if recipe.baseline.given is not None:
        return _take_baseline(run, dataset, recipe.baseline.given)
    benchmark = recipe.measured_on

    def do(folder: Path) -> tuple[dict[str, object], dict[str, Path]]:
        from recompress.models.checkpoint import save
        from recompress.models.pretrained import from_base
        from recompress.training import train

        train_rows, dev_rows = examples_of(dataset, "train"), examples_of(dataset, "dev")
        dials = kept_dials(recipe, dataset, train_rows)
        started = from_base(Path(base.uri), recipe.benchmark, labels_for(recipe, dataset), recipe.baseline.max_length, run.seed, dials)
        trained = train(started, train_rows, dev_rows, recipe.baseline, run.seed, folder / "work", curve=run.curve("baseline", "train"), label="baseline")
        save(trained, folder / "model")
        return {"kind": "baseline"}, {"model": folder / "model"}

    key = step_key(
        "baseline",
        modules=["recompress.training", "recompress.models.pretrained", type(benchmark).__module__],
        config=recipe.baseline.model_dump(mode="json") | ({"answering": recipe.kept_dials} if recipe.kept_dials else {}),
        inputs=[base.sha256, *dataset.training_digests],
        seed=run.seed,
    )
    result = run.step("baseline", key=key, run="baseline", do=do, label=f"fine-tuning on {dataset.rows['train']:,} examples")
    artifact = result["artifacts"]["model"]
    run.note("baseline-trained", key, {"model_sha256": artifact["sha256"], "base_sha256": base.sha256, "dataset_sha256": dataset.sha256})
    return ModelRef(name="baseline", kind="baseline", uri=artifact["uri"], sha256=artifact["sha256"])


def _take_baseline(run: Recompression, dataset: DatasetRef, given: BaseChoice) -> ModelRef:
    """Raises ``InputError`` for a model that does not fit the data, with what differs."""
    directory = _found(run, given)
    sha256 = sha256_directory(directory)
    recipe = run.plan.recipe
    dials = recipe.kept_dials if recipe.answering else {}
    numbers, shows = recipe.measured_on.head.answer == "number", isinstance(recipe.measured_on, ShowsExamples)
    labels, longest = labels_for(recipe, dataset), recipe.baseline.longest

    def do(folder: Path) -> tuple[dict[str, object], dict[str, Path]]:
        from recompress.benchmarks.text_regression import number_of
        from recompress.models.checkpoint import save
        from recompress.models.finetuned import from_finetuned
        from recompress.models.number_head import UNKNOWN, standard_of

        kept = kept_dials(recipe, dataset, examples_of(dataset, "train")) if shows else dials
        taken = from_finetuned(directory, recipe.benchmark, labels, kept, longest, run.say)
        if numbers and taken.info.standard == UNKNOWN:
            taken.info = replace(taken.info, standard=standard_of([number_of(row.labels) for row in examples_of(dataset, "train")]))
        save(taken, folder / "model")
        return {"kind": "baseline"}, {"model": folder / "model"}

    key = step_key(
        "given baseline",
        modules=["recompress.models.finetuned"],
        config={"benchmark": recipe.benchmark} | ({"answering": dials} if dials else {}) | ({"max_length": longest} if longest else {}),
        inputs=[sha256, *labels, *(dataset.training_digests if numbers or shows else ())],
        seed=0,
    )
    artifact = run.step("baseline", key=key, run="baseline", do=do, label=f"taking {given.model} as it is")["artifacts"]["model"]
    body = {"model_sha256": artifact["sha256"], "base_sha256": sha256, "dataset_sha256": dataset.sha256}
    run.note("baseline-trained", key, body)
    return ModelRef(name="baseline", kind="baseline", uri=artifact["uri"], sha256=artifact["sha256"])


def labels_for(recipe: Recipe, dataset: DatasetRef) -> tuple[str, ...]:
    """The labels that a model of the recipe knows: those of the data, but for models that write, or foresee, text."""
    return () if recipe.measured_on.head.answer in ("text", "nothing") else dataset.labels


def kept_dials(recipe: Recipe, dataset: DatasetRef, train: Sequence[Example]) -> dict[str, Any]:
    """The dials that a model keeps, with the examples that it is shown, where its benchmark shows it some."""
    benchmark = recipe.measured_on
    return dict(benchmark.completed(train, dataset.labels).answering) if isinstance(benchmark, ShowsExamples) else recipe.kept_dials


@line("teacher outputs")
def make_teacher_outputs(run: Recompression, dataset: DatasetRef, teacher: ModelRef) -> tuple[str, str] | None:
    """What a teacher says about the training and the unlabelled text, once for all steps that learn from it by the same text. Gives (uri, sha256).

    ``None`` for language modelling: a vocabulary of answers for each token is too much to keep, so that there the teacher is asked while students learn.
    """
    if run.plan.recipe.measured_on.head.pretrained:
        return None
    inputs = (teacher.sha256, *dataset.text_digests)
    if inputs in run.said:
        return run.said[inputs]

    def do(folder: Path) -> tuple[dict[str, object], dict[str, Path]]:
        from recompress.methods.distillation.teacher import teacher_outputs

        text = [*examples_of(dataset, "train"), *unlabelled_of(dataset)]
        with threads_held():
            teacher_outputs(run.store.fetch(teacher.uri), text, folder / "work" / "teacher")
        return {}, {"outputs": folder / "work" / "teacher"}

    key = step_key("teacher", modules=["recompress.methods.distillation.teacher"], config={}, inputs=inputs, seed=0)
    name = "teacher" if teacher.kind == "baseline" else f"{teacher.name}/teacher"
    artifact = run.step(name, key=key, run=teacher.name, do=do, label=f"what {teacher.name} says about the training text")["artifacts"]["outputs"]
    run.said[inputs] = artifact["uri"], artifact["sha256"]
    return run.said[inputs]
