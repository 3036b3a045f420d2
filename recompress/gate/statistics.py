"""The statistics behind the gate: how much worse is one model than another, and how sure can this sample make us?

Two models answer the same examples. Metrics are functions of summed counts, so a bootstrap draw is a weighted sum of count rows:

    loss = metric(other) - metric(candidate)
    draw = the same, with n examples drawn again with replacement
    upper bound = loss + a + sqrt(h^2 + a^2)        h = BCa quantile of the draws - loss,  a = z^2 / (2 n)

Where examples belong to groups (documents, authors), groups are what is drawn and left out, and n is how many groups of equal size they are worth:

    n = (sum of sizes)^2 / (sum of sizes^2)         sizes in examples; without groups n is the number of examples

Beyond the largest draw, where a very small level asks for more than the draws hold, the bound goes on in a straight line over the normal scale
(``LossEstimate._beyond``), with the steeper of two slopes: the jackknife's standard error, and what the draws themselves rose by.

``h`` is Efron's bias-corrected and accelerated bound. Alone it calls a candidate certain that lost nothing *by chance* (no difference in the sample, no spread
in the draws); ``a`` is the term by which Wilson's score bound for a count of lost examples exceeds the plain one, so that no difference seen in n examples
still leaves z^2 / n open. ``studies/gate_simulation.py`` measures what each choice does to the error rate.

Draws are stratified: every slice keeps its number of examples, because the sizes of slices are set by whoever made the test split, not by chance. An average
over slices would otherwise be blamed for the luck of how many hard languages a draw holds. Slices that share a group are one stratum of the whole split.

Sources: Kish 1965, "Survey Sampling", section 8.2 and ch. 11 (unequal weights and clusters), for n; Efron 1987, "Better bootstrap confidence intervals", JASA 82:171-185, eq. 2.3 and 6.6; Wilson 1927, JASA 22:209-212; Holm 1979, Scand. J. Statist.
6:65-70; McNemar 1947, Psychometrika 12:153-157, in its exact form; Davison and Hinkley 1997, "Bootstrap methods", ch. 5 (quantiles at k of B + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

NORMAL = NormalDist()
CHUNK = 500
"""Draws made at once: bounds memory, and never changes the result."""
PART = 200
"""Sums whose metric is asked for at once; it never changes the result."""
EXACT_IN_FLOAT32 = float(1 << 24)
"""Whole numbers below this are exact in 32 bits."""
TIE = 1e-12
MOST_DRAWS = 100_000
"""A level may ask for more draws than the policy, but for no more than this."""
TAIL = 10
"""So many draws, at least, should lie beyond a bound; the line beyond all draws begins where so many are left."""
ENOUGH_TO_GO_BEYOND = 5_000
"""Fewer draws say nothing of what lies beyond them: the bound is infinite there."""
LEAST_LEVEL = 1e-12
"""No p-value is given below this."""

Metric = Callable[[Num[np.ndarray, "*draws k"]], Float[np.ndarray, "*draws"]]
"""From summed counts to the metric, for one sum or for a batch; NaN where it is undefined."""


class Stratum(NamedTuple):
    """One slice of a paired sample with equal rows merged: what a bootstrap needs to know of it, whatever the order of examples was."""

    rows: Float[np.ndarray, "rows width"]
    """Counts of the candidate, then of the other model, added up over the group: ``width`` is twice the number of counts."""
    times: Int[np.ndarray, " rows"]
    """How many groups have these counts."""
    sizes: Int[np.ndarray, " rows"] | int = 1
    """How many examples such a group has; without groups each example is one of its own."""

    @property
    def groups(self) -> int:
        return int(self.times.sum())

    @property
    def examples(self) -> int:
        return int((self.times * self.sizes).sum())

    @property
    def totals(self) -> Float[np.ndarray, " width"]:
        """The counts of the whole sample."""
        summed: Float[np.ndarray, " width"] = self.times.astype(self.rows.dtype) @ self.rows
        return summed.astype(np.float64)

    @property
    def squares(self) -> int:
        """The sum of the squares of the groups' sizes."""
        return int((self.times * self.sizes * self.sizes).sum())


def pair(
    candidate: Num[np.ndarray, "examples k"], other: Num[np.ndarray, "_ _"], slices: Sequence[str], groups: Sequence[int] | None = None
) -> dict[str, Stratum]:
    """The paired sample by slice. Row i of both belongs to the same example, and examples with the same number in ``groups`` belong together; what a group
    has in another slice counts there. Raises ``ValueError`` when the shapes differ."""
    if candidate.shape != other.shape or len(slices) != len(candidate) or (groups is not None and len(groups) != len(candidate)):
        raise ValueError(f"a paired sample needs equal shapes, got {candidate.shape}, {other.shape} and {len(slices)} slices")
    narrow = all(_type_for(counts, len(counts)) is np.float32 for counts in (candidate, other))
    both = np.concatenate([candidate, other], axis=1, dtype=np.float32 if narrow else np.float64, casting="unsafe")
    names = np.asarray(slices)
    if groups is None:
        every = np.unique(names)
        return {str(name): Stratum(*_merged(both if len(every) == 1 else both[names == name])) for name in every}
    return {str(name): _grouped(both[names == name], np.asarray(groups)[names == name]) for name in np.unique(names)}


def _merged(rows: Num[np.ndarray, "examples width"]) -> tuple[Float[np.ndarray, "rows width"], Int[np.ndarray, " rows"]]:
    """As ``np.unique(rows, axis=0, return_counts=True)``, several times faster."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    starts = np.flatnonzero(np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)]))
    return ordered[starts].astype(_type_for(ordered, len(ordered))), np.diff(np.append(starts, len(ordered)))


def _type_for(rows: Num[np.ndarray, "rows width"], groups: int) -> type[np.floating]:
    """32 bits where no sum over ``groups`` draws can be too large for them to be exact: a thousand classes have six thousand counts."""
    largest = groups * float(np.abs(rows).max(initial=0))
    return np.float32 if largest < EXACT_IN_FLOAT32 and bool((rows == np.rint(rows)).all()) else np.float64


def _grouped(rows: Num[np.ndarray, "examples width"], groups: Int[np.ndarray, " examples"]) -> Stratum:
    """One row for each group: its size, and its counts added up. Equal ones are merged."""
    _, places = np.unique(groups, return_inverse=True)
    totals = np.zeros((int(places.max()) + 1, rows.shape[1] + 1))
    np.add.at(totals, places, np.concatenate([np.ones((len(rows), 1)), rows], axis=1))
    unique, times = _merged(totals)
    return Stratum(unique[:, 1:], times, unique[:, 0].astype(np.int64))


def joined(slices: Sequence[str], groups: Sequence[int] | None) -> list[str]:
    """For each example the name of its stratum on the whole split: its slice, or the slices that groups tie together (``hau+swa``), which are drawn together."""
    tied = {name: frozenset([name]) for name in slices}
    homes: dict[int, str] = {}
    for name, group in zip(slices, groups or (), strict=False):
        home = homes.setdefault(group, name)
        if tied[name] != tied[home]:
            together = tied[name] | tied[home]
            tied |= dict.fromkeys(together, together)
    return ["+".join(sorted(tied[name])) for name in slices]


def draws_for(level: float, tests: int, least: int) -> int:
    """How many draws a bound at ``level`` wants where Holm's correction divides it by ``tests``: ``TAIL`` beyond it, within ``least`` and ``MOST_DRAWS``."""
    return max(least, min(MOST_DRAWS, int(np.ceil(TAIL * max(tests, 1) / level))))


def resample(strata: Mapping[str, Stratum], *, draws: int, seed: int) -> dict[str, Float[np.ndarray, "draws width"]]:
    """Summed counts of ``draws`` bootstrap samples of each slice. The same seed gives the same draws (PCG64), in whatever order the examples came."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return {name: _resample(strata[name], draws, generator) for name in sorted(strata)}


def _resample(stratum: Stratum, draws: int, generator: np.random.Generator) -> Float[np.ndarray, "draws width"]:
    chances, exact = stratum.times / stratum.groups, stratum.rows.dtype
    totals = np.empty((draws, stratum.rows.shape[1]), dtype=exact)
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        np.matmul(generator.multinomial(stratum.groups, chances, size=size).astype(exact), stratum.rows, out=totals[start : start + size])
    return totals


def together(totals: Mapping[str, Float[np.ndarray, "draws width"]]) -> Float[np.ndarray, "draws width"]:
    """The counts of all strata together, draw by draw; a single one is not copied."""
    first, *others = totals.values()
    return first if not others else sum((other.astype(np.float64) for other in others), start=first.astype(np.float64))


def loss_of(totals: Num[np.ndarray, "*draws width"], metric: Metric) -> Float[np.ndarray, "*draws"]:
    """How much lower the candidate's metric is than the other's, in metric points; negative where it is higher."""
    half = totals.shape[-1] // 2
    return np.asarray(metric(totals[..., half:]) - metric(totals[..., :half]))


@dataclass(frozen=True)
class LossEstimate:
    """A measured loss and what the bootstrap says about it. ``NaN`` draws count as infinite loss: what cannot be computed is never good news."""

    loss: float
    draws: Float[np.ndarray, " draws"]
    """Losses of the bootstrap samples, sorted."""
    examples: int
    standard_error: float
    """Of the loss, by the jackknife."""
    acceleration: float
    """Efron's a: how fast the standard error moves with the loss."""
    groups: int = 0
    """Groups that were drawn; 0 where none are named and examples were."""
    worth: float | None = None
    """How many groups of equal size these are worth; None where none are named."""

    def upper(self, alpha: float) -> float:
        """The loss that the true one exceeds with probability ``alpha`` at most. Infinite when the draws cannot tell."""
        z = -NORMAL.inv_cdf(alpha)
        score = z * z / (2 * (self.worth or self.examples))
        return self.loss + score + float(np.hypot(max(self._quantile(z) - self.loss, 0.0), score))

    def p_value(self, margin: float) -> float:
        """The smallest ``alpha`` at which the upper bound lies below ``margin``: the p-value of "the loss is ``margin`` or more"; 1 when above one half."""
        low, high = LEAST_LEVEL if len(self.draws) >= ENOUGH_TO_GO_BEYOND else 1 / (len(self.draws) + 1), 0.5
        if not self.upper(high) < margin:
            return 1.0
        if self.upper(low) < margin:
            return low
        while high - low > 1e-9 * min(1.0, 1e3 * high):
            middle = (low + high) / 2
            low, high = (low, middle) if self.upper(middle) < margin else (middle, high)
        return high

    def smallest_detectable(self, alpha: float, power: float) -> float:
        """The smallest margin at which a candidate that truly loses nothing passes with probability ``power``; to first order also the smallest true loss
        that a test for any loss at all finds that often. With no spread in the sample it is z^2 / n."""
        return detectable(self.standard_error, alpha, power, self.worth or self.examples)

    @property
    def undefined(self) -> float:
        """Share of draws in which the metric had an empty denominator."""
        return float(np.isinf(self.draws).mean())

    def _quantile(self, z: float) -> float:
        """The BCa quantile of the draws, rounded up to a draw; beyond the largest the line that goes on from them, where there are enough of them."""
        count = len(self.draws)
        below = np.searchsorted(self.draws, self.loss - TIE)
        ties = np.searchsorted(self.draws, self.loss + TIE) - below
        bias = NORMAL.inv_cdf(min(max((float(below) + 0.5 * float(ties)) / count, 1 / (count + 1)), count / (count + 1)))
        stretch = 1 - self.acceleration * (bias + z)
        if not stretch > 0:
            return float("inf")
        at = bias + (bias + z) / stretch
        place = int(np.ceil(NORMAL.cdf(at) * (count + 1)))
        return float(self.draws[place - 1]) if 1 <= place <= count else self._beyond(at)

    def _beyond(self, at: float) -> float:
        """A bound for the quantile at ``at`` standard deviations, beyond all draws: never less than the largest of them."""
        count = len(self.draws)
        if count < ENOUGH_TO_GO_BEYOND:
            return float("inf")
        start, last = float(self.draws[count - TAIL]), NORMAL.inv_cdf((count + 1 - TAIL) / (count + 1))
        reach = start + (at - last) * max(self.standard_error, (start - self.loss) / last)
        return max(float(self.draws[-1]), reach) if np.isfinite(reach) else float("inf")


def detectable(error: float, alpha: float, power: float, examples: float) -> float:
    """``LossEstimate.smallest_detectable`` for a loss of standard error ``error`` over so many examples."""
    z = -NORMAL.inv_cdf(alpha)
    score = z * z / (2 * examples)
    return NORMAL.inv_cdf(power) * error + score + float(np.hypot(z * error, score))


def error_behind(smallest: float, reach: Callable[[float], float]) -> float:
    """The standard error at which ``reach(error)``, which grows with it as ``detectable`` does, is ``smallest``; 0 where even no spread at all gives more."""
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reach(middle) < smallest else (low, middle)
    return low


def estimate_loss(strata: Sequence[Stratum], totals: Float[np.ndarray, "draws width"], metric: Metric) -> LossEstimate:
    """The loss over all of ``strata`` together; ``totals`` are the summed counts of their bootstrap samples (added up over the strata)."""
    observed = sum((stratum.totals for stratum in strata), start=np.zeros(totals.shape[-1]))
    drawn = _in_parts(totals, lambda some: loss_of(some, metric))
    error, acceleration = _jackknife(strata, observed, metric)
    named = not all(isinstance(stratum.sizes, int) for stratum in strata)
    return LossEstimate(
        loss=float(loss_of(observed, metric)),
        draws=np.sort(np.where(np.isfinite(drawn), drawn, np.inf)),
        examples=sum(stratum.examples for stratum in strata),
        standard_error=error,
        acceleration=acceleration,
        groups=sum(stratum.groups for stratum in strata) if named else 0,
        worth=worth_of(strata) if named else None,
    )


def _in_parts(rows: Float[np.ndarray, "rows width"], ask: Callable[[np.ndarray], Float[np.ndarray, " some"]]) -> Float[np.ndarray, " rows"]:
    """``ask`` of a few rows at a time, in 64 bits."""
    return np.concatenate([ask(rows[start : start + PART].astype(np.float64)) for start in range(0, max(len(rows), 1), PART)])


def worth_of(strata: Sequence[Stratum]) -> float:
    """``kish`` of all groups of ``strata``."""
    return kish(sum(stratum.examples for stratum in strata), sum(stratum.squares for stratum in strata))


def kish(examples: int, squares: int) -> float:
    """Kish's effective number of groups, from the sum of their sizes and of the squares of these. Where each group is lost as a whole with chance p, whatever
    its size, the variance of the loss is p (1 - p) / n with this n."""
    return examples * examples / squares


def _jackknife(strata: Sequence[Stratum], observed: Float[np.ndarray, " width"], metric: Metric) -> tuple[float, float]:
    """Standard error and acceleration from leaving out one group at a time; NaN where that leaves the metric undefined."""
    square = cube = 0.0
    for stratum in strata:
        without = _in_parts(stratum.rows, lambda rows: loss_of(observed - rows, metric))
        influence = (stratum.times @ without) / stratum.groups - without
        influence[np.abs(influence) < TIE] = 0.0  # rounding alone, where the models never differ
        square += float(stratum.times @ influence**2)
        cube += float(stratum.times @ influence**3)
    return float(np.sqrt(square)), (cube / (6 * square**1.5) if square else 0.0 * square)


class HolmStep(NamedTuple):
    """What Holm's procedure says of one hypothesis."""

    adjusted: float
    """Its p-value, adjusted for all that were tested with it."""
    alpha: float
    """The level at which it was decided."""
    rejected: bool


def holm(p_values: Mapping[str, float], alpha: float) -> dict[str, HolmStep]:
    """Holm's step-down procedure: the chance of one false rejection or more among all is ``alpha`` at most. The first that is kept keeps all larger ones."""
    steps: dict[str, HolmStep] = {}
    adjusted, level = 0.0, alpha
    for rank, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        left = len(p_values) - rank
        if adjusted <= alpha:
            level = alpha / left
        adjusted = max(adjusted, min(1.0, left * p_values[name]))
        steps[name] = HolmStep(adjusted, level, adjusted <= alpha)
    return steps


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value that two models are right equally often, from the examples that only the other (``lost``) or only the candidate got right."""
    if not lost + gained:
        return 1.0
    from scipy.stats import binomtest

    result: Any = binomtest(lost, lost + gained, 0.5)
    return float(result.pvalue)
