"""How fast models answer: all of them in one fresh process, one thread, one after the other on the same text, in an order that rotates.

    python -m recompress.measure.latency request.json answer.json

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
from recompress.measure.rounds import PerRound, both_per_round, steady
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
) -> tuple[Float[np.ndarray, "models questions rounds"], Float[np.ndarray, "models questions rounds"]]:
    """Seconds that pass, and seconds of the processor: beside other work a longer answer is interrupted oftener, so that passing time flatters a small model.

    Every question is put to all models before the next one; who goes first rotates. The first ``warmup`` rounds are not counted.
    """
    count = len(questions[0])
    seconds = np.zeros((len(runtimes), count, warmup + rounds))
    worked = np.zeros_like(seconds)
    gc.collect()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            for i in range(count):
                for place in range(len(runtimes)):
                    model = (place + i + turn) % len(runtimes)
                    started, working = clock(), processor()
                    runtimes[model].logits(questions[model][i])
                    seconds[model, i, turn], worked[model, i, turn] = clock() - started, processor() - working
    finally:
        gc.enable()
    return seconds[..., warmup:], worked[..., warmup:]


def summary(single: Float[np.ndarray, "questions rounds"], batched: Float[np.ndarray, "batches rounds_of_batches"], batch_size: int) -> dict[str, float]:
    """``latency_p50_ms``, ``latency_p95_ms`` and ``throughput_per_s`` of one model."""
    of_each = 1000 * np.median(single, axis=-1)
    p50, p95 = np.percentile(of_each, [50, 95])
    return {"latency_p50_ms": float(p50), "latency_p95_ms": float(p95), "throughput_per_s": float(batch_size / np.median(batched))}


def answer(request: Request) -> list[Answer]:
    """Open the models that ``request`` names and time them: for each its summary, what every round gave, and what else the machine did meanwhile.

    Blocks of ``request.rounds`` are added until the speeds beside the first model's are steady, or there are ``request.most``.
    """
    runtimes = open_all(request)
    single = [[[feature] for feature in asked] for asked in request.features]
    grouped = [[batch_of(asked, start, request.batch_size) for start in range(request.batches)] for asked in request.features]
    of_batches = request.batch_rounds or max(1, request.rounds // 2)
    watch = Watch()
    alone = np.stack(interleave_both(runtimes, single, warmup=1, rounds=request.rounds))
    together = np.stack(interleave_both(runtimes, grouped, warmup=1, rounds=of_batches))
    rounds = [both_per_round(alone[:, i], together[:, i], request.batch_size) for i in range(len(runtimes))]
    for _ in range(1, request.most):
        if steady(rounds):
            break
        alone = np.concatenate([alone, interleave_both(runtimes, single, warmup=0, rounds=request.rounds)], axis=-1)
        together = np.concatenate([together, interleave_both(runtimes, grouped, warmup=0, rounds=of_batches)], axis=-1)
        rounds = [both_per_round(alone[:, i], together[:, i], request.batch_size) for i in range(len(runtimes))]
    load = watch.load()
    return [Answer(figures=summary(alone[0, i], together[0, i], request.batch_size), rounds=rounds[i], load=load) for i in range(len(runtimes))]


if __name__ == "__main__":
    reply(answer)
