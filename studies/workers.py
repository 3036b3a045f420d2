"""What workers save, and what a variant costs where there are many.

    python -m studies.workers --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"

1. The quickstart's variants from one trained baseline: two workers against one, and against one with as many threads as there are cores. Each time in a copy of
   the project in which nothing but the baseline is remembered, in the order one, two, one, all cores; the models that come out are compared by their digests.
2. 10, 55 and 100 variants of a tiny model with two workers: seconds of the processor (of the run and of its workers) that one variant more costs, between 10 and 55 and
   between 55 and 100. What it costs to start is in all three, so it cancels. Medians of five rounds by turns.

Writes ``studies/results/workers.json`` and ``.md``. Nothing else may run on the machine meanwhile. No Prefect server is started: what it costs is the same each time.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recompress.records import DatasetRef, ModelRef
from studies.written import ROOT, arguments, write
from tasks.data.bring import bring_data
from tasks.running.recompression import Recompression, listener, read_plan
from tasks.running.threads import VARIABLE, cores
from tasks.steps.compress import compress_all
from tasks.steps.train import find_base_model, train_baseline
from tasks.workers.share import share_work

WORKERS = 2
COUNTS = (10, 55, 100)
ROUNDS = 5
POINTERS = ("dvc.yaml", "dvc.lock", "params.yaml", "data.dvc", "raw", "recipes", "policies", "prepared", ".dvc", ".dvcignore")


class Plain(Recompression):
    """A recompression whose lines are called without Prefect."""

    by_prefect = False


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Steps compute with so many threads."""
    os.environ[VARIABLE] = str(count)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def begin(project: Path, recipe: str) -> tuple[Plain, DatasetRef, ModelRef]:
    """A recompression with its data and its baseline; that is trained where it is not remembered."""
    run = Plain(project, read_plan(recipe, project))
    dataset = bring_data(run)
    base: ModelRef = find_base_model(run)
    return run, dataset, train_baseline(run, dataset, base)


def seconds_of_processor() -> float:
    """Of this process and of all that it has started and seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def compress(project: Path, recipe: str, workers: int) -> dict[str, Any]:
    """Compress every variant of a recipe in a copy of a project in which its baseline is remembered: what it took and the digests that came out."""
    with tempfile.TemporaryDirectory(prefix="recompress-workers-", dir=project.parent) as folder:
        copy = Path(shutil.copytree(project, Path(folder) / "project", symlinks=True))
        run, dataset, baseline = begin(copy, recipe)
        share_work(run, workers)
        begun, worked = time.perf_counter(), seconds_of_processor()
        models = compress_all(run, run.plan.steps, baseline, dataset)
        took = {"seconds": time.perf_counter() - begun, "processor_seconds": seconds_of_processor() - worked}
        run.finish("FINISHED")
    return took | {"sha256": {model.name: model.sha256 for model in models}}


def quickstart(place: Path) -> dict[str, Any]:
    """The first part."""
    project, recipe = place / "quickstart", "recipes/quickstart.yaml"
    project.mkdir()
    for name in POINTERS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, symlinks=True)
        elif source.exists():
            shutil.copyfile(source, project / name)
    run, _, _ = begin(project, recipe)
    run.finish("FINISHED")
    arms = {}
    with threads(1):
        for arm, workers in (("one", 1), ("two", WORKERS), ("one again", 1)):
            arms[arm] = compress(project, recipe, workers)
    with threads(cores()):
        arms["one, all cores"] = compress(project, recipe, 1)
    one = (arms["one"]["seconds"] + arms["one again"]["seconds"]) / 2
    return {
        "arms": arms,
        "same_digests": arms["one"]["sha256"] == arms["two"]["sha256"] == arms["one again"]["sha256"],
        "times_faster": one / arms["two"]["seconds"],
        "times_faster_than_all_cores": arms["one, all cores"]["seconds"] / arms["two"]["seconds"],
        "spread_of_one": abs(arms["one"]["seconds"] - arms["one again"]["seconds"]) / one,
    }


def many(place: Path) -> dict[str, Any]:
    """The second part."""
    from tests.flows.toy_project import make_project

    project = make_project(place / "tiny")
    text = (project / "recipe.yaml").read_text(encoding="utf-8")
    before, after = text[: text.index("variants:")], text[text.index("policy:") :]

    def write(count: int) -> str:
        variants = "".join(f"  sparse_{i}:\n    - magnitude: {{sparsity: {0.3 + i / 1000:.3f}}}\n" for i in range(count))
        (project / f"of_{count}.yaml").write_text(f"{before}variants:\n{variants}{after}", encoding="utf-8")
        return f"of_{count}.yaml"

    run, _, _ = begin(project, write(1))
    run.finish("FINISHED")
    took: dict[int, list[dict[str, Any]]] = {count: [] for count in COUNTS}
    for number in range(ROUNDS):
        for count in COUNTS if number % 2 else reversed(COUNTS):
            took[count].append(compress(project, write(count), WORKERS))
    used = {count: statistics.median(one["processor_seconds"] for one in rounds) for count, rounds in took.items()}
    steps = [(few, more) for few, more in itertools.pairwise(COUNTS)]
    each = [(used[more] - used[few]) / (more - few) for few, more in steps]
    return {
        "seconds": {str(count): statistics.median(one["seconds"] for one in rounds) for count, rounds in took.items()},
        "processor_seconds": {str(count): [one["processor_seconds"] for one in rounds] for count, rounds in took.items()},
        "processor_seconds_for_one_more": {f"{few} to {more}": seconds for (few, more), seconds in zip(steps, each, strict=True)},
        "ratio": each[1] / each[0],
        "distinct": len(set(took[COUNTS[-1]][0]["sha256"].values())),
    }


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    first, second = results["quickstart"], results["many"]
    lines = [
        "# What workers save\n",
        f"`python -m studies.workers`, {results['date']}, {results['machine']}.\n",
        "The quickstart's four variants (nine steps and what the teacher says), from one baseline:\n",
        "| | s | s of the processor |\n|---|---:|---:|",
        *(f"| {arm} | {figures['seconds']:.0f} | {figures['processor_seconds']:.0f} |" for arm, figures in first["arms"].items()),
        f"\nTwo workers with one thread each took {1 / first['times_faster']:.2f} of the time of one ({first['times_faster']:.2f} times as fast; the two times of one differ by "
        f"{first['spread_of_one']:.0%}), and were {first['times_faster_than_all_cores']:.2f} times as fast as one with all cores. The digests with one and with two workers are "
        f"{'the same' if first['same_digests'] else 'NOT the same'}.\n",
        "Variants of a tiny model, two workers, seconds of the processor that one more costs: "
        + ", ".join(f"{seconds:.3f} from {between}" for between, seconds in second["processor_seconds_for_one_more"].items())
        + f" ({second['ratio']:.2f} times). A run of {COUNTS[0]} takes {second['seconds'][str(COUNTS[0])]:.0f} s, one of {COUNTS[-1]} {second['seconds'][str(COUNTS[-1])]:.0f} s.",
        *([f"\n{results['note']}"] if "note" in results else []),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both and write what came out."""
    told = arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="recompress-workers-") as folder, listener(print):
        write("workers", told, {"many": many(Path(folder)), "quickstart": quickstart(Path(folder))}, page)


if __name__ == "__main__":
    main()
