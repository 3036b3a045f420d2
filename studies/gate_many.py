"""Does the gate keep its promise for a whole recipe, for an adversary who reruns, and for a year of nights? And what power does honest use keep?

    python -m studies.gate_many --repeats 4000 --date 2026-11-29 --machine "2 cores of an AMD EPYC, no GPU"     (some minutes on one core)
    python -m studies.gate_many --repeats 200 --out /somewhere/else                                             (half a minute, to see that it runs)

Writes ``studies/results/gate_many.json`` and ``.md``. Candidates are accuracies whose true loss is known; levels come from ``recompress.gate.levels``, decisions from
the gate's own bounds over exact draws (``studies.gate_replica``). A *false promotion* is a candidate exactly at the margin that passes: one is too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from recompress.gate.levels import share
from recompress.gate.statistics import estimate_loss, pair, resample
from studies.gate_populations import POPULATIONS
from studies.gate_replica import draw_alike, exact_estimate, lowest_levels, room
from studies.simulation import heading, options, tell, write

ALPHA, FINALISTS, NIGHTS, RERUNS, CHURN = 0.05, 3, 365, 50, 0.02
CORRELATIONS = (0.0, 0.3, 0.7)
SHARES = np.array([0.0] + [share(step) for step in range(1, 3 * NIGHTS + 2)])
Rows = list[dict[str, Any]]
Levels = Callable[[], "Spending"]


class Setting(NamedTuple):
    """A test split and a margin; dev has half as many examples."""

    examples: int
    margin: float

    @property
    def dev(self) -> int:
        return self.examples // 2


USUAL = Setting(2000, 0.02)
SETTINGS = (Setting(500, 0.04), Setting(1000, 0.03), Setting(2000, 0.02), Setting(2000, 0.03), Setting(5000, 0.02))


class Ladders:
    """The gate's two ladders in many worlds at once: ``recompress.gate.levels`` for looks one after the other."""

    def __init__(self, worlds: int) -> None:
        self.refused = np.zeros((worlds, 2), dtype=np.int64)

    def level(self, place: int) -> np.ndarray:
        return np.asarray(ALPHA / 2 * SHARES[self.refused[:, min(place, 1)] + 1])

    def judged(self, place: int, there: np.ndarray, proven: np.ndarray, level: np.ndarray) -> None:
        self.refused[:, min(place, 1)] += there & ~proven


class Spending:
    """Alpha-spending: the step of a look is its number, whatever came out before."""

    def __init__(self, worlds: int) -> None:
        self.looks = np.zeros(worlds, dtype=np.int64)

    def level(self, place: int) -> np.ndarray:
        return np.asarray(ALPHA * SHARES[self.looks + 1])

    def judged(self, place: int, there: np.ndarray, proven: np.ndarray, level: np.ndarray) -> None:
        self.looks += there


class Fallback(Spending):
    """The online fallback procedure: a proof hands its level on to the next look alone."""

    def __init__(self, worlds: int) -> None:
        super().__init__(worlds)
        self.handed = np.zeros(worlds)

    def level(self, place: int) -> np.ndarray:
        return super().level(place) + self.handed

    def judged(self, place: int, there: np.ndarray, proven: np.ndarray, level: np.ndarray) -> None:
        self.handed = np.where(there, np.where(proven, level, 0.0), self.handed)
        super().judged(place, there, proven, level)


def one_run(ladders: Any, lowest: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Judge the finalists of a run in their order: ``lowest`` are the lowest levels at which each would pass, ``[worlds, finalists]``. Gives who passed."""
    passed = np.zeros(lowest.shape, dtype=bool)
    for place in range(lowest.shape[1]):
        level = ladders.level(place)
        passed[:, place] = there[:, place] & (lowest[:, place] <= level)
        ladders.judged(place, there[:, place], passed[:, place], level)
    return passed


def finalists_of(rng: np.random.Generator, setting: Setting, worlds: int, candidates: int, loss: float, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Those with the most room on dev, the safest first, and whether dev let them through at all. ``[worlds, finalists]``"""
    on_dev = room(setting.dev, setting.margin, *draw_alike(rng, (worlds, candidates), setting.dev, loss, CHURN, correlation))
    best = np.argsort(-on_dev, axis=1)[:, :FINALISTS]
    return best, np.take_along_axis(on_dev, best, 1) > 0


def many_candidates(repeats: int, setting: Setting = USUAL, numbers: tuple[int, ...] = (1, 5, 20, 50)) -> Rows:
    """One run of a recipe whose variants all lie at the margin: a false promotion when each is judged at 5 %, and now."""
    rows: Rows = []
    for candidates in numbers:
        for correlation in CORRELATIONS:
            rng = np.random.default_rng(11)
            lowest = lowest_levels(*setting, *draw_alike(rng, (repeats, candidates), setting.examples, setting.margin, CHURN, correlation))
            best, there = finalists_of(rng, setting, repeats, candidates, setting.margin, correlation)
            passed = one_run(_ladders(repeats, best.shape[1]), np.take_along_axis(lowest, best, 1), there)
            each = 100 * float((lowest <= ALPHA).any(1).mean())
            rows.append({"candidates": candidates, "correlation": correlation, "each_at_5_percent": each, "gate_percent": 100 * float(passed.any(1).mean())})
            tell(rows[-1])
    return rows


class Sole(Ladders):
    """A sole finalist stands on both ladders."""

    def level(self, place: int) -> np.ndarray:
        return np.asarray(ALPHA / 2 * SHARES[self.refused + 1].sum(1))

    def judged(self, place: int, there: np.ndarray, proven: np.ndarray, level: np.ndarray) -> None:
        self.refused += (there & ~proven)[:, None]


def _ladders(worlds: int, finalists: int) -> Ladders:
    return Sole(worlds) if finalists == 1 else Ladders(worlds)


def adversary(repeats: int, setting: Setting = USUAL, reruns: int = RERUNS, candidates: int = 20) -> Rows:
    """Somebody reruns until something passes, each time with ``candidates`` new variants at the margin, the best of them on dev as finalists."""
    rows: Rows = []
    for reads in (False, True):
        for correlation in CORRELATIONS[1:] if reads else CORRELATIONS:
            rng, ladders, fooled = np.random.default_rng(12), Ladders(repeats), np.zeros((repeats, 3), dtype=bool)
            common = draw_alike(rng, (repeats, 1), setting.examples, setting.margin, CHURN, 0.0)
            start = common[0][:, 0], common[1][:, 0]
            for _ in range(reruns):
                # dev chooses among candidates of one true loss, so that the finalists' test answers are those of any three
                lost, won = draw_alike(rng, (repeats, FINALISTS), setting.examples, setting.margin, CHURN, correlation, start)
                _, there = finalists_of(rng, setting, repeats, candidates, setting.margin, correlation)
                lowest = lowest_levels(*setting, lost, won)
                fooled[:, 0] |= (lowest <= ALPHA).any(1)
                fooled[:, 1] |= one_run(ladders, lowest, there).any(1)
                if reads:
                    start = _better(start, lost, won)
            row = {"adversary": "copies whoever did best on the test split" if reads else "sees who passed", "correlation": correlation}
            rows.append(row | {"each_at_5_percent": 100 * float(fooled[:, 0].mean()), "gate_percent": 100 * float(fooled[:, 1].mean())})
            tell(rows[-1])
    return rows


def _better(start: tuple[np.ndarray, np.ndarray], lost: np.ndarray, won: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = np.concatenate([start[0][:, None], lost], 1), np.concatenate([start[1][:, None], won], 1)
    best = (every[0] - every[1]).argmin(1)[:, None]
    return np.take_along_axis(every[0], best, 1)[:, 0], np.take_along_axis(every[1], best, 1)[:, 0]


def year(repeats: int, setting: Setting, correlation: float, losses: tuple[float, ...], procedure: Any = Ladders, nights: int = NIGHTS) -> dict[str, Any]:
    """A nightly schedule: each night new models of the same recipes, whose finalists lose these parts of the margin. Passing ones become champion."""
    rng, ladders = np.random.default_rng(13), procedure(repeats)
    by_place = [lowest_levels(*setting, *draw_alike(rng, (repeats, nights), setting.examples, part * setting.margin, CHURN, correlation)) for part in losses]
    everybody = np.ones((repeats, len(losses)), dtype=bool)
    passed = np.stack([one_run(ladders, np.stack([lowest[:, night] for lowest in by_place], 1), everybody) for night in range(nights)], 1)
    bad = [place for place, part in enumerate(losses) if part >= 1]
    good = [place for place, part in enumerate(losses) if part < 1]
    shares = {when: 100 * float(passed[:, nights_of][:, :, good].any(2).mean()) if good else None for when, nights_of in PARTS.items()}
    return {"false_percent": 100 * float(passed[:, :, bad].any((1, 2)).mean()) if bad else None, "passes_percent": shares}


PARTS = {"first night": slice(0, 1), "first month": slice(0, 30), "all nights": slice(None), "last month": slice(-30, None)}
KINDS = {
    "three at the margin": (1.0, 1.0, 1.0),
    "safest loses nothing, two at the margin": (0.0, 1.0, 1.0),
    "safest loses half, two at the margin": (0.5, 1.0, 1.0),
}


def nights(repeats: int) -> Rows:
    rows: Rows = []
    for kind, losses in KINDS.items():
        for correlation in CORRELATIONS:
            rows.append({"finalists": kind, "correlation": correlation, **year(repeats, USUAL, correlation, losses)})
            tell(rows[-1])
    return rows


def nights_by_setting(repeats: int) -> Rows:
    rows: Rows = []
    for setting in SETTINGS:
        outcome = year(repeats, setting, 0.3, KINDS["safest loses nothing, two at the margin"])
        rows.append({"examples": setting.examples, "margin": setting.margin, **outcome})
        tell(rows[-1])
    return rows


def procedures(repeats: int) -> Rows:
    """The same year under other procedures that hold for dependent looks."""
    rows: Rows = []
    for name, procedure in {"two ladders (the gate's)": Ladders, "online fallback": Fallback, "alpha-spending": Spending}.items():
        rows.append({"procedure": name, **year(repeats, USUAL, 0.3, KINDS["safest loses nothing, two at the margin"], procedure)})
        tell(rows[-1])
    return rows


def power(repeats: int) -> Rows:
    """On a fresh split: how often passes a candidate that loses nothing, or half the margin, alone at 5 %, as sole finalist, as the first of three, as the second?"""
    levels = {
        "alone at 5 %": ALPHA,
        "sole finalist": ALPHA * SHARES[1],
        "first of three": ALPHA / 2 * SHARES[1],
        "third, after two refusals": ALPHA / 2 * SHARES[2],
    }
    levels |= {"first, after 10 refusals": ALPHA / 2 * SHARES[11], "first, after 100 refusals": ALPHA / 2 * SHARES[101]}
    rows: Rows = []
    for setting in SETTINGS:
        for part in (0.0, 0.5):
            rng = np.random.default_rng(14)
            lowest = lowest_levels(*setting, *draw_alike(rng, (repeats, 1), setting.examples, part * setting.margin, CHURN, 0.0))
            passes = {name: 100 * float((lowest <= level).mean()) for name, level in levels.items()}
            rows.append({"examples": setting.examples, "margin": setting.margin, "loses": part, "passes_percent": passes})
            tell(rows[-1])
    return rows


SMALL_LEVELS = (0.05, 0.0123, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
AT_THE_MARGIN = ((200, 0.05, 0.0), (1000, 0.02, 0.0), (1000, 0.03, 0.02), (2000, 0.02, 0.02), (2000, 0.05, 0.05), (5000, 0.02, 0.02))


def small_levels() -> Rows:
    """The chance that the bound lies below the margin though the true loss is the margin, as a part of its level, by going through all samples: 1 at most is wanted."""
    rows: Rows = []
    for examples, margin, churn in AT_THE_MARGIN:
        error = np.zeros(len(SMALL_LEVELS))
        for lost in range(int(binom.isf(1e-9, examples, margin + churn)) + 1):
            for won in range(int(binom.isf(1e-9, examples, churn)) + 1 if churn else 1):
                chance = binom.pmf(lost, examples, margin + churn) * (binom.pmf(won, examples - lost, churn / (1 - margin - churn)) if churn else 1.0)
                if lost - won < margin * examples and chance > 1e-12:
                    estimate = exact_estimate(examples, lost, won, 10_000)
                    error += chance * np.array([estimate.upper(level) < margin for level in SMALL_LEVELS])
        parts = {f"{level:g}": float(part) for level, part in zip(SMALL_LEVELS, error / SMALL_LEVELS, strict=True)}
        rows.append({"examples": examples, "margin": margin, "churn": churn, "part_of_level": parts})
        tell(rows[-1])
    return rows


def other_metrics(repeats: int, levels: tuple[float, ...] = (0.05, 0.0247, 0.0123, 0.0033)) -> Rows:
    """The same for metrics without a closed form, with the gate's own draws."""
    rows: Rows = []
    for kind in ("F1", "F1, whole sentences lost", "macro F1, rare classes"):
        draw, metric, _ = POPULATIONS[kind]
        rng, below = np.random.default_rng(15), np.zeros(len(levels))
        for i in range(repeats):
            strata = pair(*draw(rng, 1000, 0.03, 0.02), [""] * 1000)
            estimate = estimate_loss(list(strata.values()), resample(strata, draws=3_000, seed=i)[""], metric)
            below += [estimate.upper(level) < 0.03 for level in levels]
        rows.append({"metric": kind, "passes_percent": {f"{level:g}": 100 * float(b) / repeats for level, b in zip(levels, below, strict=True)}})
        tell(rows[-1])
    return rows


def main() -> None:
    from studies.gate_many_page import as_markdown

    given, began = options(__doc__, 4000), time.process_time()
    result = heading("gate_many", given) | {
        "many_candidates": many_candidates(given.repeats),
        "adversary": adversary(given.repeats),
        "nights": nights(given.repeats // 4),
        "nights_by_setting": nights_by_setting(given.repeats // 8),
        "procedures": procedures(given.repeats // 4),
        "power": power(given.repeats),
        "small_levels": small_levels(),
        "other_metrics": other_metrics(given.repeats // 4),
    }
    result["seconds"] = round(time.process_time() - began)
    write("gate_many", given, result, as_markdown)


if __name__ == "__main__":
    main()
