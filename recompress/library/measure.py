"""What a model is worth on labelled examples, and what it costs on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from recompress.gate import Measured, read_measured
from recompress.gate.rounds import rounds_needed
from recompress.integrity.digest import sha256_file, sha256_json
from recompress.library.load import Model, load
from recompress.library.rows import Rows, examples_of
from recompress.measure.how_often import LIMITED, Rounds
from recompress.measure.machine import machine_facts
from recompress.measure.quality import evaluate_quality
from recompress.measure.size import parameters, size_bytes
from recompress.measure.speed import measure_rounds
from recompress.methods.full_precision import in_full_precision
from recompress.records import Evaluation


@dataclass(frozen=True)
class Measurement:
    """What was measured on one model."""

    metrics: dict[str, float]
    """The benchmark's metrics (shares, 0 to 1), ``size_bytes`` and ``parameters``; beside a baseline also ``latency_p50_ms``, ``latency_ratio``, ``peak_memory_bytes`` …"""
    slices: dict[str, dict[str, float]]
    types: dict[str, dict[str, float]]
    """The metrics for each label or entity type."""
    answers: Measured
    """What the model did with every example, as ``judge`` takes it."""
    benchmark: str
    labels: tuple[str, ...]


def measure(model: str | Path | Model, rows: Rows, *, baseline: str | Path | Model | None = None) -> Measurement:
    """Let a model answer labelled ``rows`` (see ``recompress.library.rows``); with ``baseline``, time both side by side on this machine too.

    Nothing else should run while models are timed. Raises ``InputError`` for rows that the model cannot answer and ``DataRefused`` without any.

    >>> recompress.measure(model, rows).metrics["accuracy"]
    0.75
    """
    asked = load(model)
    examples = examples_of(asked, rows, "the rows to measure on", labelled=True)
    digest = sha256_json([[list(example.words), list(example.labels), example.slice, example.group] for example in examples])
    with tempfile.TemporaryDirectory(prefix="recompress-measure-") as place:
        predictions = Path(place) / "predictions.parquet"
        quality = evaluate_quality(asked.folder, examples, predictions, label="measuring")
        metrics = quality.metrics | {"size_bytes": float(size_bytes(asked.folder)), "parameters": float(parameters(asked.folder))}
        evaluation = Evaluation(
            model=asked.folder.name,
            model_sha256=asked.sha256,
            dataset_sha256=digest,
            metrics=metrics,
            slices=quality.slices,
            types=quality.types,
            predictions_sha256=sha256_file(predictions),
        )
        if baseline is not None:
            plan = Rounds(single=max(LIMITED, 2 + rounds_needed(0.05)))
            start = load(baseline).folder
            others = in_full_precision(start, [asked.info.runtime], examples, Path(place))
            [timed] = measure_rounds([asked.folder], start, examples, Path(place), plan=plan, others=others)
            facts = {"metrics": metrics | timed.metrics, "rounds": {name: tuple(values) for name, values in timed.rounds.items()}, "load": timed.load}
            evaluation = evaluation.model_copy(update=facts | {"machine": machine_facts()})
        return Measurement(evaluation.metrics, quality.slices, quality.types, read_measured(evaluation, predictions), asked.info.benchmark, asked.info.labels)
