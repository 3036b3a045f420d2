"""How fast models answer: all of them in one fresh process, one thread, in an order that rotates.

    python -m recompress.measure.latency request.json answer.json

Two ways, because a model finds its weights in the processor's caches or does not:

    hot     in each round a model answers all texts before the next model does, as one does that serves a steady stream
    cold    each text is put to all models before the next text, so that each finds the caches full of what the others left

Latency is the time of one example at batch 1, tokenizing not counted; of each example the median over all rounds is kept, and p50 and p95 are taken over
examples, so that p95 speaks of long texts and not of what else the machine did. Throughput is the batch size by the median time of a batch.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from recompress.measure.load import Watch
from recompress.measure.request import Request, batch_of, open_all, reply
from recompress.measure.rounds import PerRound, both_per_round, cold_per_round, steady
from recompress.runtimes import Feature, Runtime

Question = Sequence[Feature]
"""What is asked in one call: one example, or a batch."""


class Answer(TypedDict):
    """What is told of one model."""

    figures: dict[str, float]
    rounds: PerRound
    load: dict[str, float]


def interleave(
    runtimes: Sequence[Runtime], questions: Sequence[Sequence[Question]], *, warmup: int, rounds: int, clock: Callable[[], float] = perf_counter
) -> Float[np.ndarray, "models questions rounds"]:
    """Seconds that each model takes for each of its questions, ``questions[model][question]``, in each round."""
    return interleave_both(runtimes, questions, warmup=warmup, rounds=rounds, clock=clock)[0]


def interleave_both(
    runtimes: Sequence[Runtime],
    questions: Sequence[Sequence[Question]],
    *,
    warmup: int,
    rounds: int,
    clock: Callable[[], float] = perf_counter,
    processor: Callable[[], float] = process_time,
    stream: bool = False,
) -> tuple[Float[np.ndarray, "models questions rounds"], Float[np.ndarray, "models questions rounds"]]:
    """Seconds that pass, and seconds of the processor: beside other work a longer answer is interrupted oftener, so that passing time flatters a small model.

    Every question is put to all models before the next one, so that caches are cold; with ``stream`` each model answers all of its questions before the next model
    does, behind one that is not timed, so that they are hot. Who goes first rotates. The first ``warmup`` rounds are not counted.
    """
    count = len(questions[0])
    seconds = np.zeros((len(runtimes), count, warmup + rounds))
    worked = np.zeros_like(seconds)
    gc.collect()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            for model, i in _order(len(runtimes), count, turn, stream=stream):
                if stream and i == 0:
                    runtimes[model].logits(questions[model][-1])  # what the model before left in the caches goes
                started, working = clock(), processor()
                runtimes[model].logits(questions[model][i])
                seconds[model, i, turn], worked[model, i, turn] = clock() - started, processor() - working
    finally:
        gc.enable()
    return seconds[..., warmup:], worked[..., warmup:]


def _order(models: int, questions: int, turn: int, *, stream: bool) -> list[tuple[int, int]]:
    """Which model answers which question, one after the other, in one round."""
    order = [(place + turn) % models for place in range(models)]  # the same for all questions of a round, or one model would answer two in a row
    if stream:
        return [(model, i) for model in order for i in range(questions)]
    return [(model, i) for i in range(questions) for model in order]


def summary(single: Float[np.ndarray, "questions rounds"], batched: Float[np.ndarray, "batches rounds_of_batches"], batch_size: int) -> dict[str, float]:
    """``latency_p50_ms``, ``latency_p95_ms`` and ``throughput_per_s`` of one model."""
    of_each = 1000 * np.median(single, axis=-1)
    p50, p95 = np.percentile(of_each, [50, 95])
    return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95), "throughput_per_s": float(batch_size / np.median(batched))}


def cold_summary(single: Float[np.ndarray, "questions rounds"]) -> dict[str, float]:
    """``cold_latency_p50_ms`` of one model."""
    return {"cold_latency_p50_ms": float(1000 * np.median(np.median(single, axis=-1)))}


def answer(request: Request) -> list[Answer]:
    """Open the models that ``request`` names and time them: for each its summary, what every round gave, and what else the machine did meanwhile.

    Blocks of ``request.rounds`` are added until the speeds beside the first model's are steady, or there are ``request.most``.
    """
    runtimes = open_all(request)
    single = [[[feature] for feature in asked] for asked in request.features]
    grouped = [[batch_of(asked, start, request.batch_size) for start in range(request.batches)] for asked in request.features]
    of_batches, of_cold = (wanted or max(1, request.rounds // 2) for wanted in (request.batch_rounds, request.cold_rounds))
    watch = Watch()
    hot, cold, together = (np.zeros((2, len(runtimes), count, 0)) for count in (len(single[0]), len(single[0]), request.batches))
    for block in range(request.most):
        warmup = 0 if block else 1
        hot = _with(hot, interleave_both(runtimes, single, warmup=warmup, rounds=request.rounds, stream=True))
        cold = _with(cold, interleave_both(runtimes, single, warmup=0, rounds=of_cold))
        together = _with(together, interleave_both(runtimes, grouped, warmup=warmup, rounds=of_batches, stream=True))
        rounds = [both_per_round(hot[:, i], together[:, i], request.batch_size) | cold_per_round(cold[:, i]) for i in range(len(runtimes))]
        if steady(rounds):
            break
    load = watch.load()
    figures = [summary(hot[0, i], together[0, i], request.batch_size) | cold_summary(cold[0, i]) for i in range(len(runtimes))]
    return [Answer(figures=figures[i], rounds=rounds[i], load=load) for i in range(len(runtimes))]


def _with(before: np.ndarray, more: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([before, np.stack(more)], axis=-1)


if __name__ == "__main__":
    reply(answer)
