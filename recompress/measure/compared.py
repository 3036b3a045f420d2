"""Times as fast as what? The baseline's time divided by the model's, for each baseline that it is compared with, caches hot and cold.

    latency_ratio           the baseline as it was trained, in torch
    latency_ratio_onnx      the same numbers in full precision in ONNX Runtime, where some model is timed that answers there
    latency_ratio_runtime   the same numbers in full precision in the model's own runtime: what fewer bits and smaller shapes gain, and no change of runtime
    cold_latency_ratio …    the same, where other models had the processor's caches in between
    decode_ratio …          of models that write, by the time of a token behind the first
    processor_ratio …       by the processor's time, round by round

A model that moves from torch to ONNX Runtime is faster with the very same numbers, so the first alone would praise compression for what the runtime does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import truediv
from typing import TypeVar

from recompress.measure.rounds import PerRound, ratios

Time = TypeVar("Time", float, list[float])
TORCH = "torch"
FAMILY = {"torch": TORCH, "packed": TORCH}
"""What runs where: packed weights are torch's."""
TIMES = {
    "latency_ratio": "latency_p50_ms",
    "cold_latency_ratio": "cold_latency_p50_ms",
    "processor_ratio": "processor_p50_ms",
    "cold_processor_ratio": "cold_processor_p50_ms",
    "decode_ratio": "token_ms",
    "decode_processor_ratio": "token_processor_ms",
}
"""Each ratio, and what of."""


def family_of(runtime: str) -> str:
    """Where a model with the baseline's numbers answers as one of this runtime does."""
    return FAMILY.get(runtime, runtime)


def _compared(baselines: Mapping[str, Mapping[str, object]], runtime: str) -> Iterator[tuple[str, str]]:
    """How each name of a ratio ends, and the runtime of the baseline that it speaks of."""
    yield from (("" if name == TORCH else f"_{name}", name) for name in baselines)
    if family_of(runtime) in baselines:
        yield "_runtime", family_of(runtime)


def ratios_of_rounds(baselines: Mapping[str, PerRound], runtime: str, model: PerRound) -> PerRound:
    """The ratios round by round of a model that answers in ``runtime``; ``baselines`` are the same numbers by the runtime that they answer in."""
    return _beside(baselines, runtime, model, ratios)


def ratios_of_figures(baselines: Mapping[str, Mapping[str, float]], runtime: str, model: Mapping[str, float]) -> dict[str, float]:
    """The ratios of latencies as a whole."""
    return _beside(baselines, runtime, model, truediv)


def _beside(baselines: Mapping[str, Mapping[str, Time]], runtime: str, model: Mapping[str, Time], ratio: Callable[[Time, Time], Time]) -> dict[str, Time]:
    return {
        f"{called}{end}": ratio(baselines[name][key], model[key])
        for end, name in _compared(baselines, runtime)
        for called, key in TIMES.items()
        if key in model and key in baselines[name]
    }
