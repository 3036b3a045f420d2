"""How well a model answers: its prediction for every test example, and the benchmark's metrics in all, per slice and per type.

The predictions are a Parquet file, a row for each example in the order of the split: ``example`` (its number in the split), ``slice``, ``reference``,
``prediction`` (a label for each unit) and ``counts`` (what the metrics add up; the columns' names stand in the file's metadata). Where the data names groups,
``group`` says the number of the first example of the same group: who belongs together, but not the group's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil
from jaxtyping import Float, Int

from recompress.benchmarks import Benchmark, ComparesWith, Example, InWindows, ReadsOn, answers_of, benchmark_of
from recompress.errors import DataRefused, IntegrityError
from recompress.progress import bar
from recompress.runtimes import Feature, Runtime, runtime_of

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint

Metrics = dict[str, float]


@dataclass(frozen=True)
class Quality:
    """The metrics of one model. A metric without a value, because its denominator is empty, is left out."""

    metrics: Metrics
    slices: dict[str, Metrics]
    types: dict[str, Metrics]


class Beside(NamedTuple):
    """What a model is compared with, where its benchmark does so."""

    baseline: Path
    """The directory of the baseline."""
    predictions: Path | None
    """What it answered to the same examples; ``None`` where the model itself is the baseline."""


def evaluate_quality(directory: Path, examples: Sequence[Example], predictions: Path, *, label: str = "predicting", beside: Beside | None = None) -> Quality:
    """Let the model in ``directory`` answer all ``examples`` through its runtime, on all cores, and write its answers to ``predictions``; with ``beside``, what a
    benchmark of texts that are written counts beside the baseline is there too.

    Raises ``DataRefused`` without examples or for labels that the model does not know, and ``IntegrityError`` for logits that are not finite.
    """
    from recompress.models.checkpoint import load

    if not examples:
        raise DataRefused("the test split is empty; there is nothing to measure quality on")
    checkpoint = load(directory)
    info, benchmark = checkpoint.info, benchmark_of(checkpoint.info)
    runtime = runtime_of(checkpoint, threads=psutil.cpu_count(logical=True) or 1)
    if isinstance(benchmark, ReadsOn):
        answers = benchmark.read(runtime, checkpoint.tokenizer, examples, info.max_length, label)
        if isinstance(benchmark, ComparesWith) and beside is not None:
            answers = _compared(benchmark, checkpoint, runtime, examples, answers, beside, label)
    else:
        features = benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)
        units = predict(runtime, benchmark, features, label)
        if broken := sum(not np.isfinite(row).all() for row in units):
            raise IntegrityError(
                f"{directory} gives logits that are not finite for {broken} of {len(features)} {'windows' if isinstance(benchmark, InWindows) else 'examples'}"
            )
        answers = answers_of(benchmark, units, features, examples, info.labels)
    counts = benchmark.counts([example.labels for example in examples], answers, info.labels)
    write_predictions(predictions, examples, answers, counts, benchmark, info.labels)
    return summarise(benchmark, counts, [example.slice for example in examples], info.labels)


def _compared(
    benchmark: ComparesWith, checkpoint: Checkpoint, runtime: Runtime, examples: Sequence[Example], answers: list[tuple[str, ...]], beside: Beside, label: str
) -> list[tuple[str, ...]]:
    """Answers with what is counted beside the baseline's."""
    from pyarrow import parquet

    from recompress.benchmarks.agreement import Speaker
    from recompress.models.checkpoint import load

    if beside.predictions is None:
        return benchmark.with_itself(answers)
    theirs = [tuple(row) for row in parquet.read_table(beside.predictions, columns=["prediction"]).column("prediction").to_pylist()]
    if len(theirs) != len(answers):
        raise IntegrityError(f"{beside.predictions} has answers to {len(theirs)} examples, and {len(answers)} were asked")
    baseline = load(beside.baseline)
    other = Speaker(runtime_of(baseline, runtime.threads), baseline.tokenizer)
    return benchmark.beside(
        Speaker(runtime, checkpoint.tokenizer), other, examples, answers, theirs, checkpoint.info.max_length, f"{label} beside the baseline"
    )


def predict(runtime: Runtime, benchmark: Benchmark, features: Sequence[Feature], label: str = "predicting") -> list[Float[np.ndarray, "units labels"]]:
    """The logits of each unit of each example, in order. Which examples share a call is the runtime's own choice, as it is where the model is served."""
    answers: dict[int, Float[np.ndarray, "units labels"]] = {}
    with bar(label, len(features), "example") as progress:
        for rows, part in runtime.in_parts(features):
            for row, logits in zip(rows, part, strict=True):
                answers[row] = benchmark.unit_logits(logits, features[row])
            progress.update(len(rows))
    return [answers[i] for i in range(len(features))]


def summarise(benchmark: Benchmark, counts: Int[np.ndarray, "examples k"], slices: Sequence[str], labels: Sequence[str]) -> Quality:
    """Metrics from counts: added up over all examples, and over those of each slice."""
    names = np.asarray(slices)
    return Quality(
        metrics=_known(benchmark.metrics(counts.sum(axis=0), labels)),
        slices={name: _known(benchmark.metrics(counts[names == name].sum(axis=0), labels)) for name in sorted(set(slices))},
        types={name: _known(scores) for name, scores in benchmark.by_type(counts.sum(axis=0), labels).items()},
    )


def write_predictions(
    path: Path,
    examples: Sequence[Example],
    answers: Sequence[Sequence[str]],
    counts: Int[np.ndarray, "examples k"],
    benchmark: Benchmark,
    labels: Sequence[str],
) -> None:
    """Write the Parquet file, all or nothing. The same answers give the same bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "example": pa.array(range(len(examples)), pa.int64()),
            "slice": pa.array([example.slice for example in examples], pa.string()),
            "reference": pa.array([list(example.labels) for example in examples], pa.list_(pa.string())),
            "prediction": pa.array([list(answer) for answer in answers], pa.list_(pa.string())),
            "counts": pa.array(counts.tolist(), pa.list_(pa.int64())),
            **({} if (groups := group_numbers(examples)) is None else {"group": pa.array(groups, pa.int64())}),
        }
    )
    metadata = {"benchmark": benchmark.name, "labels": json.dumps(list(labels)), "count_names": json.dumps(benchmark.count_names(labels))}
    temporary = path.with_name(f".{path.name}.partial")
    parquet.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    temporary.replace(path)


def group_numbers(examples: Sequence[Example]) -> list[int] | None:
    """For each example the number of the first one of its group; an example without a group is one of its own. ``None`` where the data names no groups."""
    if not any(example.group for example in examples):
        return None
    first: dict[str, int] = {}
    return [first.setdefault(example.group, i) if example.group else i for i, example in enumerate(examples)]


def _known(metrics: dict[str, Float[np.ndarray, ""]] | Metrics) -> Metrics:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
