"""Shapes that keep within a budget of time: some are cut and timed, the others foretold from these.

    share = time of the cut network / time of the whole one, on one thread, the two taking turns, medians of several rounds

Time follows no formula as exact as that of parameters, so that shapes are drawn where a line through what was measured says that they may fit, and are kept
where the measurement says that they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.measure.latency import interleave
from recompress.methods.slimming.shapes import Shape, Sizes
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of

QUESTIONS, WARMUP, ROUNDS = 3, 1, 7
TRIES = 6
"""Shapes that are timed for each that is wanted, at most."""


def time_share(whole: Checkpoint, cut: Checkpoint) -> float:
    """How long ``cut`` takes for random tokens at full length, as a share of what ``whole`` takes."""
    draw = np.random.default_rng(0)
    words = min(len(whole.tokenizer), len(cut.tokenizer))
    questions = [[{"input_ids": draw.integers(0, words, whole.info.max_length).tolist()}] for _ in range(QUESTIONS)]
    seconds = interleave([runtime_of(checkpoint, threads=1) for checkpoint in (whole, cut)], [questions, questions], warmup=WARMUP, rounds=ROUNDS)
    of_each = np.median(seconds, axis=-1).sum(axis=-1)
    return float(of_each[1] / of_each[0])


def shapes_in_time(
    shapes: list[Shape], now: Shape, sizes: Sizes, time_of: Callable[[Shape], float], *, share: float, tolerance: float, count: int, seed: int
) -> list[Shape]:
    """At most ``count`` of ``shapes`` whose measured share of the time is within ``tolerance`` of ``share``; the seed breaks ties.

    Raises ``InputError`` when none of those that were timed is.
    """
    order = [shapes[i] for i in np.random.default_rng(seed % 2**32).permutation(len(shapes))]
    timed = {now: 1.0}
    chosen: list[Shape] = []
    for _ in range(min(TRIES * count, len(order))):
        left = [shape for shape in order if shape not in timed]
        if len(chosen) == count or not left:
            break
        off = np.abs(_foretold(timed, left, now, sizes) - share)
        fits = np.flatnonzero(off <= tolerance * share)
        shape = left[int(fits[0]) if len(fits) else int(off.argmin())]
        timed[shape] = time_of(shape)
        if abs(timed[shape] - share) <= tolerance * share:
            chosen.append(shape)
    if not chosen:
        least, most = min(timed.values()), max(timed.values())
        raise InputError(
            f"search finds no shape within {tolerance:.0%} of {share:g} of the time (the {len(timed) - 1} that were timed take from {least:.2f} to {most:.2f}); "
            "change latency, lower smallest, or let more vary"
        )
    return sorted(chosen)


def _foretold(timed: dict[Shape, float], shapes: Iterable[Shape], now: Shape, sizes: Sizes) -> Float[np.ndarray, " shapes"]:
    """The flattest plane through what was measured, over layers, width and parameters of the layers, each as a share of what is there."""

    def place(shape: Shape) -> list[float]:
        return [1.0, shape.layers / now.layers, shape.hidden / now.hidden, sizes.of_layers(shape) / sizes.of_layers(now)]

    known = np.array([place(shape) for shape in timed])
    plane, *_ = np.linalg.lstsq(known, np.array(list(timed.values())), rcond=None)
    return np.asarray(np.array([place(shape) for shape in shapes]) @ plane)
