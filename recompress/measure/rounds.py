"""What each interleaved round gave, and whether more rounds are needed.

A bound needs figures that vary as the machine's noise does: of every round the p50 and p95 over its texts, and its throughput. Rounds are added in blocks until
the models' speeds beside the first one's are steady, or until there are ``most`` blocks. When to stop depends on how much the figures vary and never on how
fast a model is, let alone on a limit: rounds are not added until somebody likes what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

STEADY = 0.05
"""The largest spread (half of all rounds lie within it, as a share of the median) at which no more rounds are added."""

RESOLUTION = 1e-9
"""Seconds: what the processor's clock says of an answer that it cannot measure. Real ones take many times as long."""

PerRound = dict[str, list[float]]


def per_round(single: Float[np.ndarray, "questions rounds"], batched: Float[np.ndarray, "batches rounds_of_batches"], batch_size: int) -> PerRound:
    """``latency_p50_ms``, ``latency_p95_ms`` and ``throughput_per_s`` of one model in each round, from the seconds that ``interleave`` gives."""
    p50, p95 = np.percentile(1000 * single, [50, 95], axis=0)
    throughput = batch_size / np.median(batched, axis=0)
    return {"latency_p50_ms": p50.tolist(), "latency_p95_ms": p95.tolist(), "throughput_per_s": throughput.tolist()}


def both_per_round(single: Float[np.ndarray, "2 questions rounds"], batched: Float[np.ndarray, "2 batches rounds_of_batches"], batch_size: int) -> PerRound:
    """The same by passing time and, as ``processor_p50_ms``, ``processor_p95_ms`` and ``processor_per_s``, by the time in which a processor worked on it."""
    names = {"latency_p50_ms": "processor_p50_ms", "latency_p95_ms": "processor_p95_ms", "throughput_per_s": "processor_per_s"}
    worked = per_round(np.maximum(single[1], RESOLUTION), np.maximum(batched[1], RESOLUTION), batch_size)
    return per_round(single[0], batched[0], batch_size) | {names[name]: values for name, values in worked.items()}


def cold_per_round(single: Float[np.ndarray, "2 questions rounds"]) -> PerRound:
    """``cold_latency_p50_ms`` and ``cold_processor_p50_ms`` in each round, of texts that were put to a model after all the others had answered them."""
    passed, worked = (np.median(1000 * np.maximum(seconds, RESOLUTION), axis=0).tolist() for seconds in single)
    return {"cold_latency_p50_ms": passed, "cold_processor_p50_ms": worked}


def ratios(first: Sequence[float], other: Sequence[float]) -> list[float]:
    """How many times as fast the other model is, round by round: noise that lasts for a round falls on both."""
    return [slow / fast for slow, fast in zip(first, other, strict=True)]


def steady(rounds: Sequence[Mapping[str, Sequence[float]]]) -> bool:
    """Whether the speed of each model beside the first is known well enough."""
    first = rounds[0]["latency_p50_ms"]
    return all(spread(ratios(first, other["latency_p50_ms"])) <= STEADY for other in rounds[1:])


def spread(values: Sequence[float]) -> float:
    """The width of the middle half, as a share of the median."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / middle)
