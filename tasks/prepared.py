"""The prepared splits of one recompression: brought by DVC, named by digest, read as examples."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from recompress.benchmarks import Example, get_benchmark
from recompress.data.splits import labels_of, preparation, read_split
from recompress.digest import sha256_directory
from recompress.errors import InputError
from recompress.records import DatasetRef, Split
from tasks.data import bring
from tasks.recompression import Recompression


@task(task_run_name="bring data", cache_policy=NO_CACHE, persist_result=False)
def bring_data(run: Recompression) -> DatasetRef:
    """The prepared splits that the recipe names, as pinned in ``dvc.lock``."""
    recipe = run.plan.recipe
    chosen = recipe.dataset
    run.say(f"data: {chosen.name}" + (f" and unlabelled {chosen.unlabelled}" if chosen.unlabelled else ""))
    brought = bring(run.root, chosen.name)
    said = preparation(brought.folder)
    if said["benchmark"] != recipe.benchmark:
        raise InputError(f"data set {chosen.name!r} is for {said['benchmark']}, the recipe's benchmark is {recipe.benchmark}")
    slices = tuple(chosen.slices or sorted(said["slices"]))
    unlabelled = None
    if chosen.unlabelled:
        folder = bring(run.root, chosen.unlabelled).folder
        unlabelled = (str(folder), sha256_directory(folder))
    return DatasetRef(
        name=chosen.name,
        benchmark=recipe.benchmark,
        uri=str(brought.folder),
        sha256=sha256_directory(brought.folder),
        md5=brought.md5,
        labels=labels_of(brought.folder, slices),
        slices=slices,
        rows={split: len(read_split(brought.folder, split, slices)) for split in ("train", "dev", "test")},
        unlabelled=unlabelled,
    )


@lru_cache(maxsize=4)
def _read(folder: Path, sha256: str, split: Split, slices: tuple[str, ...] | None) -> list[Example]:
    return read_split(folder, split, slices)


def examples_of(dataset: DatasetRef, split: Split) -> list[Example]:
    """The examples of one split, of the chosen slices, in their frozen order."""
    return _read(Path(dataset.uri), dataset.sha256, split, dataset.slices)


def unlabelled_of(dataset: DatasetRef) -> list[Example]:
    """The unlabelled text of the chosen slices, split into units as the benchmark splits text; empty where the recipe names none."""
    if dataset.unlabelled is None:
        return []
    from recompress.distillation.teacher import unlabelled_examples

    folder, sha256 = Path(dataset.unlabelled[0]), dataset.unlabelled[1]
    shared = tuple(name for name in dataset.slices if name in preparation(folder)["slices"])
    return unlabelled_examples((example.words[0] for example in _read(folder, sha256, "train", shared or None)), get_benchmark(dataset.benchmark))
