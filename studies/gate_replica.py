"""The gate's decision for accuracy, exactly and fast: from how many examples a candidate lost and won to the lowest level at which it passes.

Where examples are right or wrong as a whole, a bootstrap draw of the loss is (lost - won) / n of a multinomial sample, whose distribution has a closed form: the
inverse Fourier transform of (1 + l (e^it - 1) + w (e^-it - 1))^n. Its quantiles stand in for the draws, and everything else is the gate's own code
(``LossEstimate``): ``tests/gate/test_many.py`` compares the two.
"""

from __future__ import annotations

from functools import cache
from math import ceil, sqrt

import numpy as np

from recompress.gate.statistics import LEAST_LEVEL, MOST_DRAWS, LossEstimate, detectable

POWER = 0.8


def exact_estimate(examples: int, lost: int, won: int, draws: int = MOST_DRAWS) -> LossEstimate:
    """What the gate estimates from a sample in which the candidate lost and won so many examples, with draws that have no luck in them."""
    size = 1 << ceil(np.log2(64 + 2 * abs(lost - won) + 40 * sqrt(lost + won + 1)))
    turn = np.exp(2j * np.pi * np.arange(size) / size)
    chances = np.fft.fft((1 + lost / examples * (turn - 1) + won / examples * (1 / turn - 1)) ** examples).real / size
    steps = np.arange(size)
    steps = np.where(steps > size // 2 + lost - won, steps - size, steps)
    order = np.argsort(steps)
    below = np.cumsum(np.clip(chances[order], 0, None))
    places = np.arange(1, draws + 1) / (draws + 1)
    drawn = steps[order][np.minimum(np.searchsorted(below / below[-1], places - 1e-13), size - 1)] / examples
    loss, times = (lost - won) / examples, np.array([lost, won, examples - lost - won])
    influence = (np.array([1.0, -1.0, 0.0]) - loss) / (examples - 1)
    square, cube = float(times @ influence**2), float(times @ influence**3)
    return LossEstimate(loss, drawn, examples, sqrt(square), cube / (6 * square**1.5) if square else 0.0)


@cache
def lowest_level(examples: int, margin: float, lost: int, won: int) -> float:
    """The lowest level at which the gate passes such a sample: its bound lies inside the margin, and the sample is large enough; 1 where there is none."""
    if lost - won >= margin * examples:
        return 1.0
    estimate = exact_estimate(examples, lost, won)
    return max(estimate.p_value(margin), _large_enough_from(estimate, margin))


def _large_enough_from(estimate: LossEstimate, margin: float) -> float:
    """The lowest level at which this sample could show the margin."""
    low, high = np.log(LEAST_LEVEL), np.log(0.5)
    if detectable(estimate.standard_error, 0.5, POWER, estimate.examples) > margin:
        return 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if detectable(estimate.standard_error, float(np.exp(middle)), POWER, estimate.examples) <= margin else (middle, high)
    return float(np.exp(high))


def lowest_levels(examples: int, margin: float, lost: np.ndarray, won: np.ndarray) -> np.ndarray:
    """``lowest_level`` for arrays of samples."""
    width = int(won.max()) + 1
    cells, where = np.unique(lost.astype(np.int64) * width + won, return_inverse=True)
    return np.array([lowest_level(examples, margin, int(cell // width), int(cell % width)) for cell in cells])[where].reshape(lost.shape)


def draw_alike(
    rng: np.random.Generator,
    shape: tuple[int, int],
    examples: int,
    loss: float,
    churn: float,
    correlation: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Examples lost and won by ``shape[1]`` candidates in each of ``shape[0]`` worlds, all of the same true loss. Whether two of them lose an example has this
    correlation: each copies what a common model did there with probability sqrt(correlation), else goes its own way. ``start`` is that model, drawn anew if none."""
    chances, copied = (loss + churn, churn), sqrt(correlation)
    if start is None:
        start = _split(rng, np.full(shape[0], examples), chances)
    groups = (start[0], start[1], examples - start[0] - start[1])
    lost, won = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for kind, group in enumerate(groups):
        same = rng.binomial(np.broadcast_to(group[:, None], shape), copied)
        ours = _split(rng, group[:, None] - same, chances)
        lost += ours[0] + (same if kind == 0 else 0)
        won += ours[1] + (same if kind == 1 else 0)
    return lost, won


def _split(rng: np.random.Generator, examples: np.ndarray, chances: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    lost = rng.binomial(examples, chances[0])
    return lost, rng.binomial(examples - lost, chances[1] / (1 - chances[0]))


def room(examples: int, margin: float, lost: np.ndarray, won: np.ndarray) -> np.ndarray:
    """As ``recompress.gate.finalists`` orders candidates by what dev says."""
    loss = (lost - won) / examples
    error = np.sqrt(((lost + won) / examples - loss**2) * examples / (examples - 1) ** 2)
    return np.asarray((margin - loss) / np.hypot(error, 1 / examples))
