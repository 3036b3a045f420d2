"""Does the gate keep its promises where examples belong together, and where models are trained several times? Candidates whose true loss is known.

    python -m studies.gate_groups --repeats 2000 --date 2026-11-29 --machine "2 cores of an AMD EPYC, no GPU"
    python -m studies.gate_groups --repeats 40 --out /somewhere/else                                              (seconds, to see that it runs)

Writes ``studies/results/gate_groups.json`` and ``.md``. Every bound is ``recompress.gate``'s own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recompress.gate.statistics import estimate_loss, pair, resample
from studies.gate_populations import RIGHT, Pair, accuracy

DRAWS, ALPHA, POWER = 1_000, 0.05, 0.8
CHURN = 0.02
SIZES = (1, 2, 10, 20)
SPLITS = ((1_000, 0.08), (4_000, 0.04))
"""(examples, margin)"""
Rows = list[dict[str, Any]]
Population = Callable[[np.random.Generator, int, int, float], tuple[Pair, np.ndarray]]


def clustered(rng: np.random.Generator, examples: int, size: int, loss: float) -> tuple[Pair, np.ndarray]:
    """Groups of ``size`` that rise and fall together: all texts of a group are lost, or won, or neither."""
    return _pair(rng, np.full(examples // size, size), loss, 1.0)


def loosely_clustered(rng: np.random.Generator, examples: int, size: int, loss: float) -> tuple[Pair, np.ndarray]:
    """The chance that a text is lost differs from group to group (Beta), so that two losses in a group correlate at 0.3."""
    return _pair(rng, np.full(examples // size, size), loss, 0.3)


def unevenly_clustered(rng: np.random.Generator, examples: int, size: int, loss: float) -> tuple[Pair, np.ndarray]:
    """Groups that rise and fall together, of sizes from a geometric distribution of mean ``size``: a few are ten times as large as most."""
    return _pair(rng, rng.geometric(1 / size, examples // size), loss, 1.0)


def _pair(rng: np.random.Generator, sizes: np.ndarray, loss: float, correlation: float) -> tuple[Pair, np.ndarray]:
    """Right or wrong as a whole: ``loss + CHURN`` of the texts are lost, ``CHURN`` are won."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    lost = rng.random(len(groups)) < _chances(rng, loss + CHURN, correlation, len(sizes))[groups]
    won = ~lost & (rng.random(len(groups)) < _chances(rng, CHURN / (1 - loss - CHURN), correlation, len(sizes))[groups])
    both = ~lost & ~won & (rng.random(len(groups)) < RIGHT)
    ones = np.ones(len(groups), dtype=np.int64)
    return (np.stack([won | both, ones], 1).astype(np.int64), np.stack([lost | both, ones], 1).astype(np.int64)), groups


def _chances(rng: np.random.Generator, mean: float, correlation: float, groups: int) -> np.ndarray:
    if correlation == 1:
        return (rng.random(groups) < mean).astype(float)
    total = 1 / correlation - 1
    return rng.beta(mean * total, (1 - mean) * total, groups)


POPULATIONS: dict[str, Population] = {"whole groups": clustered, "correlation 0.3": loosely_clustered, "whole groups, uneven sizes": unevenly_clustered}


def false_passes(population: Population, *, examples: int, size: int, margin: float, repeats: int, seed: int, loss: float | None = None) -> dict[str, float]:
    """Share of samples in which the bound lies below the margin though the true loss is the margin (or ``loss``), with groups named and not named; and, named,
    in which the sample is called large enough as well."""
    rng, passes = np.random.default_rng(seed), np.zeros((repeats, 3), dtype=bool)
    for i in range(repeats):
        (ours, theirs), groups = population(rng, examples, size, margin if loss is None else loss)
        for column, named in ((0, groups), (1, None)):
            strata = pair(ours, theirs, [""] * len(ours), named)
            estimate = estimate_loss(list(strata.values()), resample(strata, draws=DRAWS, seed=i)[""], accuracy)
            passes[i, column] = estimate.upper(ALPHA) < margin
            if column == 0:
                passes[i, 2] = passes[i, 0] and estimate.smallest_detectable(ALPHA, POWER) <= margin
    return dict(zip(("named", "not named", "named, sample large enough"), map(float, passes.mean(0)), strict=True))
