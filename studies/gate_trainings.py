"""Recipes whose true loss is known, trained several times: each training's own loss varies from seed to seed, and its answers from text to text.

The second half of ``studies.gate_groups``. ``between`` is the standard deviation of a training's true loss around the recipe's.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from recompress.gate.spread import of_recipe
from recompress.gate.statistics import LossEstimate, estimate_loss, pair, resample
from recompress.gate.trainings import mean_over
from studies.gate_populations import RIGHT, accuracy

DRAWS, ALPHA, POWER = 1_000, 0.05, 0.8
CHURN, COMMON = 0.03, 0.5
"""How many texts a candidate mends, and how often trainings agree on which texts are easily lost or won."""


def trained(rng: np.random.Generator, trainings: int, between: float, examples: int, loss: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Right or wrong, ``[examples]`` of candidate and baseline, for each training. All are asked the same texts, and tend to fail on the same."""
    easy, tends = rng.random(examples), rng.random(examples)
    pairs = []
    for own in loss + between * rng.standard_normal(trainings):
        lost, won = max(CHURN + own, 0.0), max(CHURN, -own)
        luck = _mixed(rng, easy)
        theirs = _mixed(rng, tends) < RIGHT
        ours = np.where(theirs, luck >= lost / RIGHT, luck < won / (1 - RIGHT))
        pairs.append((ours, theirs))
    return pairs


def _mixed(rng: np.random.Generator, common: np.ndarray) -> np.ndarray:
    """Uniform numbers that are those of all trainings for some texts and this training's own for the others."""
    return np.where(rng.random(len(common)) < COMMON, common, rng.random(len(common)))


def one_estimate(pairs: list[tuple[np.ndarray, np.ndarray]], seed: int) -> LossEstimate:
    """As the gate does it for a whole split."""
    ones, count = np.ones(len(pairs[0][0]), dtype=np.int64), len(pairs)
    ours, theirs = (np.concatenate([np.stack([each[side], ones], 1) for each in pairs], axis=1) for side in (0, 1))
    strata = pair(ours, theirs, [""] * len(ones))
    mean = mean_over(count, lambda totals: {"accuracy": accuracy(totals)}, "accuracy")
    estimate = estimate_loss(list(strata.values()), resample(strata, draws=DRAWS, seed=seed)[""], lambda totals: np.asarray(mean(totals)["accuracy"]))
    return of_recipe(estimate, ours.sum(axis=0), theirs.sum(axis=0), accuracy, count)


def false_passes(*, trainings: int, between: float, examples: int, margin: float, repeats: int, seed: int, loss: float | None = None) -> dict[str, float]:
    """Share of recipes that pass though their true loss is the margin (or ``loss``): by the gate's bound alone, with its demands on the sample and on the first
    training too, by the first training alone, and by a bootstrap that draws trainings as well as texts."""
    rng, passes = np.random.default_rng(seed), np.zeros((repeats, 4), dtype=bool)
    for i in range(repeats):
        pairs = trained(rng, trainings, between, examples, margin if loss is None else loss)
        recipe, first = one_estimate(pairs, i), one_estimate(pairs[:1], i)
        bound, alone = recipe.upper(ALPHA) < margin, first.upper(ALPHA) < margin
        large = max(recipe.smallest_detectable(ALPHA, POWER), first.smallest_detectable(ALPHA, POWER)) <= margin
        passes[i] = bound, bound and alone and large, alone, drawn_twice(rng, pairs) < margin
    return dict(zip(("recipe", "recipe and first", "first training alone", "bootstrap of trainings"), map(float, passes.mean(0)), strict=True))


def drawn_twice(rng: np.random.Generator, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The percentile bound of a two-stage bootstrap: trainings with replacement, then texts."""
    differences = np.stack([theirs.astype(float) - ours for ours, theirs in pairs])
    count, texts = differences.shape
    chosen = np.stack([np.bincount(row, minlength=count) for row in rng.integers(0, count, size=(DRAWS, count))]) / count
    weights = rng.multinomial(texts, np.full(texts, 1 / texts), size=100).astype(np.float32) / texts
    means = weights @ differences.T.astype(np.float32)  # 100 draws of texts for each training
    losses = (chosen @ means.T).ravel()
    return float(np.quantile(losses, NormalDist().cdf(-NormalDist().inv_cdf(ALPHA))))
