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
from studies import gate_trainings
from studies.gate_populations import RIGHT, Pair, accuracy
from studies.simulation import heading, options, tell, write

DRAWS, ALPHA, POWER = 1_000, 0.05, 0.8
CHURN = 0.02
SIZES = (1, 2, 10, 20)
SPLITS = ((1_000, 0.08), (2_000, 0.05))
"""(examples, margin)"""
TRAININGS, BETWEEN = (2, 3, 5), (0.0, 0.01, 0.02)
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


def groups(repeats: int) -> Rows:
    """Groups of 1 to 20, at the margin and without any loss."""
    rows: Rows = []
    for kind, population in POPULATIONS.items():
        for examples, margin in SPLITS if kind == "whole groups" else SPLITS[1:]:
            for size in SIZES:
                at = false_passes(population, examples=examples, size=size, margin=margin, repeats=repeats, seed=1)
                good = false_passes(population, examples=examples, size=size, margin=margin, repeats=max(repeats // 10, 20), seed=2, loss=0.0)
                row = {"groups": kind, "size": size, "examples": examples, "margin": margin, "at_the_margin": at, "no_loss": good}
                rows.append(row)
                tell(row)
    return rows


def trainings(repeats: int) -> Rows:
    """Two to five trainings whose true losses differ by nothing up to two points, at the margin and without any loss."""
    rows: Rows = []
    for count in TRAININGS:
        for between in BETWEEN:
            at = gate_trainings.false_passes(trainings=count, between=between, examples=1_000, margin=0.04, repeats=repeats, seed=3)
            good = {}
            for margin in (0.04, 0.06):
                few = max(repeats // 10, 20)
                shares = gate_trainings.false_passes(trainings=count, between=between, examples=2_000, margin=margin, repeats=few, seed=4, loss=0.0)
                good[str(margin)] = shares["recipe and first"]
            row = {"trainings": count, "between": between, "at_the_margin": at, "no_loss": good}
            rows.append(row)
            tell(row)
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Groups and trainings: does the gate keep its promises?", "", f"`{result['command']}`", ""]
    lines += [f"{result['date']}, {result['machine']}, {result['versions']}; {DRAWS:,} draws each, bounds at 95 %", "", "## Groups", ""]
    lines += [f"{result['repeats']:,} samples for each line at the margin, a tenth of that without loss. At the margin 5 % are wanted at most.", ""]
    lines += [
        "| groups | size | examples | margin | at the margin, not named | at the margin, named | no loss, passes the bound | and the sample is large enough |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in result["groups"]:
        at, good = row["at_the_margin"], row["no_loss"]
        cells = [_percent(value) for value in (at["not named"], at["named"], good["named"], good["named, sample large enough"])]
        lines.append(f"| {row['groups']} | {row['size']} | {row['examples']:,} | {row['margin']} | " + " | ".join(cells) + " |")
    lines += ["", "## Trainings", ""]
    lines += [f"{result['training_repeats']:,} recipes for each line at the margin of 0.04 with 1,000 examples; without loss a tenth of that with 2,000.", ""]
    lines += ["`spread` is the standard deviation of a training's true loss around the recipe's. The gate asks for the last column of those at the margin.", ""]
    lines += [
        "| trainings | spread | first training alone | bootstrap of trainings and texts | bound of the recipe | recipe and first | no loss, margin 0.04 | 0.06 |"
    ]
    lines += ["|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for row in result["trainings"]:
        at = row["at_the_margin"]
        names = ("first training alone", "bootstrap of trainings", "recipe", "recipe and first")
        cells = [_percent(value) for value in (*(at[name] for name in names), *row["no_loss"].values())]
        lines.append(f"| {row['trainings']} | {row['between']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    given = options(__doc__, 2000)
    result = heading("gate_groups", given) | {
        "training_repeats": given.repeats // 4,
        "groups": groups(given.repeats),
        "trainings": trainings(given.repeats // 4),
    }
    write("gate_groups", given, result, as_markdown)


if __name__ == "__main__":
    main()
