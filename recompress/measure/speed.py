"""Size, speed and memory of models beside their baseline, as metrics.

Ratios are baseline divided by model, so that more is better: a ``latency_ratio`` of 3 is three times as fast, a ``size_ratio`` of 4 a quarter of the bytes.
How many times as fast depends on what it is compared with, so each says it (``recompress.measure.compared``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recompress.benchmarks import Example, benchmark_of, first_of_each
from recompress.errors import DataRefused
from recompress.measure.compared import ratios_of_figures, ratios_of_rounds
from recompress.measure.how_often import ROUNDS, Rounds
from recompress.measure.load import worst
from recompress.measure.request import Request, ask
from recompress.measure.size import parameters, size_bytes
from recompress.measure.writing import measure_writing
from recompress.models.checkpoint import read_info
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import Feature
from recompress.runtimes.batches import inputs_of

Metrics = dict[str, float]
TEXTS = 32
"""Test examples that models are timed on, spread evenly over the split."""
BATCH_SIZE = 32
BATCHES = 2


def measure(model: Path, baseline: Path, examples: Sequence[Example], folder: Path, *, threads: int = 1, repeats: int = ROUNDS) -> Metrics:
    """``measure_all`` for one model."""
    return measure_all([model], baseline, examples, folder, threads=threads, repeats=repeats)[0]


def measure_all(models: Sequence[Path], baseline: Path, examples: Sequence[Example], folder: Path, *, threads: int = 1, repeats: int = ROUNDS) -> list[Metrics]:
    """Time all models and their baseline interleaved in one process, and each one's memory in a process of its own. Nothing else should run meanwhile.

    Gives for each model ``parameters``, ``size_bytes``, ``latency_p50_ms``, ``latency_p95_ms`` and ``cold_latency_p50_ms`` (batch 1), ``throughput_per_s`` (batch 32),
    ``peak_memory_bytes`` and ``steady_memory_bytes``, and ``size_ratio``, ``throughput_ratio`` and the ratios of ``recompress.measure.compared`` to the baseline; for
    models that write also what ``recompress.measure.writing`` gives. ``threads`` are pinned; ``repeats`` is the number of timed rounds. Raises ``DataRefused`` without examples and ``RecompressError`` when a measuring process fails.
    """
    return [one.metrics for one in measure_rounds(models, baseline, examples, folder, threads=threads, plan=Rounds(repeats))]


class Measurement(NamedTuple):
    """One model's metrics; what every round gave for those that a limit may be set on; and what else the machine did while it was timed."""

    metrics: Metrics
    rounds: dict[str, list[float]]
    load: dict[str, float]


def measure_rounds(
    models: Sequence[Path],
    baseline: Path,
    examples: Sequence[Example],
    folder: Path,
    *,
    threads: int = 1,
    plan: Rounds | None = None,
    others: Mapping[str, Path] | None = None,
) -> list[Measurement]:
    """As ``measure_all``, with what every round gave. ``others`` are models with the baseline's numbers, by the runtime that they answer in."""
    plan, others = plan or Rounds(), others or {}
    if not examples:
        raise DataRefused("the test split is empty; there is no text to measure speed on")
    sample = [examples[i] for i in np.linspace(0, len(examples) - 1, num=TEXTS).round().astype(int)]
    together = list(dict.fromkeys(path.resolve() for path in (baseline, *models, *others.values())))
    request = Request(
        directories=tuple(together),
        features=tuple(_encoded(directory, sample) for directory in together),
        threads=threads,
        rounds=plan.single,
        batch_rounds=plan.batches,
        cold_rounds=plan.cold,
        writing_rounds=plan.writing,
        most=plan.most,
        batch_size=BATCH_SIZE,
        batches=BATCHES,
    )
    answers: dict[Path, Any] = dict(zip(together, ask("recompress.measure.latency", request, folder / "latency"), strict=True))
    for path, (figures, rounds, load) in measure_writing(together, request, folder).items():
        one = answers[path]
        answers[path] = {"figures": one["figures"] | figures, "rounds": one["rounds"] | rounds, "load": worst(one["load"], load)}
    of_baseline = answers[baseline.resolve()]
    compared = {runtime: answers[path.resolve()] for runtime, path in others.items()} | {read_info(baseline).runtime: of_baseline}
    size = float(size_bytes(baseline))
    asked = [[_memory(model.resolve(), request, folder / "memory") for model in models] for _ in range(plan.memory)]
    measurements = []
    for number, model in enumerate(models):
        answer = answers[model.resolve()]
        memory = {name: [one[number][name] for one in asked] for name in asked[0][number]}
        runtime = read_info(model).runtime
        rounds = answer["rounds"] | ratios_of_rounds({name: one["rounds"] for name, one in compared.items()}, runtime, answer["rounds"]) | memory
        usual = {name: float(np.median(values)) for name, values in memory.items()}
        metrics = _metrics(model.resolve(), answer["figures"], of_baseline["figures"] | {"size_bytes": size}, usual)
        metrics |= ratios_of_figures({name: one["figures"] for name, one in compared.items()}, runtime, answer["figures"])
        measurements.append(Measurement(metrics, rounds, answer["load"]))
    return measurements


def _metrics(model: Path, timed: Metrics, baseline: Metrics, memory: Metrics) -> Metrics:
    size = float(size_bytes(model))
    return timed | {
        "parameters": float(parameters(model)),
        "size_bytes": size,
        **memory,
        "size_ratio": baseline["size_bytes"] / size,
        "throughput_ratio": timed["throughput_per_s"] / baseline["throughput_per_s"],
    }


def _memory(model: Path, request: Request, folder: Path) -> Metrics:
    place = request.directories.index(model)
    alone = request.model_copy(update={"directories": (model,), "features": (request.features[place],)})
    return {name: float(size) for name, size in ask("recompress.measure.memory", alone, folder).items()}


def _encoded(directory: Path, examples: Sequence[Example]) -> tuple[Feature, ...]:
    """The examples as the model's own tokenizer sees them, without what only training and judging need; of those that are read in windows the first."""
    info = read_info(directory)
    features = benchmark_of(info).encode(load_tokenizer(directory), examples, info.labels, info.max_length)
    return tuple(inputs_of(feature) for feature in first_of_each(features))
