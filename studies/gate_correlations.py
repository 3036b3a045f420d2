"""What the gate's bound really does for correlations: how often a candidate that is exactly at the margin passes, and what the fixed ranks of Spearman cost.

    python studies/gate_correlations.py [samples]        a minute for 400 samples on one core

Texts have a number y; the baseline answers y + noise, the candidate y + more noise that is partly the same, so that the true loss is known: of a normal population for
Pearson, 6 / pi * asin(r / 2) for Spearman (Pearson 1907). The margin is the true loss. A bound at 95 % should be passed in at most 5 % of samples.
"""

from __future__ import annotations

import sys

import numpy as np

from recompress.benchmarks.text_regression import TextRegression
from recompress.gate.statistics import estimate_loss, pair, resample

BENCHMARK, LABELS = TextRegression(), ("value",)
ALPHA, DRAWS = 0.05, 1000
POPULATIONS = {"close answers": (0.95, 0.92), "usual": (0.80, 0.75), "weak": (0.5, 0.4)}
SIZES = (100, 300, 1000)


def spearman_of(r: float) -> float:
    return 6 / np.pi * np.arcsin(r / 2)


def sample(count: int, rs: tuple[float, float], draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, and the answers of baseline and candidate with these correlations; half of the candidate's noise is the baseline's."""
    y, shared, own = draw.normal(size=(3, count))
    noises = shared, np.sqrt(0.5) * shared + np.sqrt(0.5) * own
    baseline, candidate = (r * y + np.sqrt(1 - r * r) * noise for r, noise in zip(rs, noises, strict=True))
    return y, baseline, candidate


def passes(metric: str, count: int, rs: tuple[float, float], samples: int) -> float:
    """The share of samples in which a candidate exactly at the margin passes."""
    margin = rs[0] - rs[1] if metric == "pearson" else spearman_of(rs[0]) - spearman_of(rs[1])
    passed = 0
    for seed in range(samples):
        y, baseline, candidate = (
            [(repr(float(value)),) for value in values] for values in sample(count, rs, np.random.default_rng((seed, count, round(1000 * rs[0]))))
        )
        ours, theirs = (BENCHMARK.counts(y, answers, LABELS) for answers in (candidate, baseline))
        strata = pair(ours, theirs, [""] * count)
        estimate = estimate_loss(list(strata.values()), resample(strata, draws=DRAWS, seed=seed)[""], lambda totals: BENCHMARK.metrics(totals, LABELS)[metric])
        passed += estimate.upper(ALPHA) < margin
    return passed / samples


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("| metric | population | " + " | ".join(f"{size} texts" for size in SIZES) + " |")
    print("|---|---|" + "---|" * len(SIZES))
    for metric in ("pearson", "spearman"):
        for name, rs in POPULATIONS.items():
            shares = [f"{100 * passes(metric, size, rs, samples):.1f} %" for size in SIZES]
            print(f"| {metric} | {name} ({rs[0]} against {rs[1]}) | " + " | ".join(shares) + " |", flush=True)


if __name__ == "__main__":
    main()
