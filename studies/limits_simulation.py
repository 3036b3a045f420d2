"""How often does a model that is exactly as fast as its limit pass, and how often is a model that is faster told apart from a busy machine?

    python -m studies.limits_simulation --date 2026-11-29 --machine "2 cores of an AMD EPYC, no GPU"

Rounds are drawn as a machine might give them: the true ratio times noise with heavy tails (Student's t with 3 degrees of freedom, in the logarithm), on a quiet
machine, beside other work, on a machine that lets its process wait, on a host that gives time to others, on one that slows down. They are added in blocks of 8, up
to three, by the very rule of ``recompress.measure.rounds``, and judged by the very function of the gate. "point" is what judging by the median alone would do.
Then the floor: answers are drawn from models whose true accuracy is the floor, or above it, and judged by the gate's lower bound.
Writes ``studies/results/limits_simulation.md``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recompress.benchmarks.text_classification import TextClassification
from recompress.gate import Measured
from recompress.gate.baseline import lower_bound
from recompress.gate.rounds import check_rounds
from recompress.measure.rounds import STEADY, spread
from recompress.measure.speed import LIMITED, MOST
from recompress.policy import Limits, Policy
from recompress.records import Evaluation

RESULT = Path(__file__).parent / "results" / "limits_simulation.md"
LIMIT, SAMPLES = 1.2, 2000
BLOCK = LIMITED
FLOOR_SAMPLES, LABELS = 1000, ("a", "b")
TIMES = (1.0, 1.05, 1.2, 1.5, 2.5)
"""True speed as a multiple of the limit."""
IDLE = {"processor_share": 1.0, "steal_share": 0.0, "switches_per_s": 1.0}


class Machine(NamedTuple):
    """What a machine does to rounds, and what it says of itself."""

    name: str
    noise: float
    drift: float = 0.0
    load: tuple[tuple[str, float], ...] = ()


MACHINES = (
    Machine("quiet", 0.01),
    Machine("some other work", 0.10),
    Machine("much other work", 0.35),
    Machine("its process waits", 0.20, load=(("processor_share", 0.5),)),
    Machine("its host is busy", 0.10, load=(("steal_share", 0.15),)),
    Machine("it slows down", 0.02, drift=0.3),
)


def rounds(rng: np.random.Generator, machine: Machine, ratio: float) -> list[float]:
    """Ratios, in blocks, until they are steady."""
    values: list[float] = []
    for block in range(MOST):
        at = np.arange(block * BLOCK, (block + 1) * BLOCK) / (MOST * BLOCK) - 0.5
        values += (ratio * np.exp(machine.noise * rng.standard_t(3, BLOCK) + machine.drift * at)).tolist()
        if spread(values) <= STEADY:
            break
    return values


def outcome(values: list[float], machine: Machine, alpha: float) -> str:
    evaluation = Evaluation(
        model="m",
        model_sha256="0" * 64,
        dataset_sha256="0" * 64,
        metrics={},
        slices={},
        rounds=dict.fromkeys(("latency_ratio_runtime", "processor_ratio_runtime"), tuple(values)),
        load=IDLE | dict(machine.load),
    )
    [finding] = check_rounds(Limits(times_faster=LIMIT), evaluation, "times_faster", alpha=alpha)
    return finding.reason or "passed"


def row(machine: Machine, times: float, alpha: float) -> str:
    rng = np.random.default_rng(7)
    said, point, count = Counter[str](), 0, 0
    for _ in range(SAMPLES):
        values = rounds(rng, machine, times * LIMIT)
        said[outcome(values, machine, alpha)] += 1
        point += float(np.median(values)) >= LIMIT
        count += len(values)
    shares = [f"{100 * said[name] / SAMPLES:.1f} %" for name in ("passed", "latency-too-high", "machine-too-busy")]
    return f"| {machine.name} | {times:g} | {' | '.join(shares)} | {100 * point / SAMPLES:.1f} % | {count / SAMPLES:.1f} |"


def floor_row(count: int, floor: float, above: float, policy: Policy) -> str:
    """How often a model reaches the floor whose true accuracy is ``floor + above``."""
    rng, by_bound, by_point = np.random.default_rng(11), 0, 0
    names, labels = [str(i) for i in range(count)], [("a",)] * count
    for _ in range(FLOOR_SAMPLES):
        right = rng.random(count) < floor + above
        counts = TextClassification().counts(labels, [("a",) if good else ("b",) for good in right], LABELS)
        evaluation = Evaluation(model="m", model_sha256="0" * 64, dataset_sha256="0" * 64, metrics={}, slices={})
        measured = Measured(evaluation, names, [""] * count, labels, counts)
        lower, value = lower_bound(policy, lambda totals: TextClassification().metrics(totals, LABELS), measured, alpha=0.05)
        by_bound += lower >= floor
        by_point += value >= floor
    return f"| {count:,} | {floor:g} | {above:g} | {100 * by_bound / FLOOR_SAMPLES:.1f} % | {100 * by_point / FLOOR_SAMPLES:.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--date", required=True)
    parser.add_argument("--machine", required=True)
    given = parser.parse_args()
    command = f'python -m studies.limits_simulation --date {given.date} --machine "{given.machine}"'
    lines = ["# Limits on speed, judged by a bound over rounds", "", f"`{command}`", ""]
    lines += [f"{SAMPLES:,} samples each, limit {LIMIT}, blocks of {BLOCK} rounds, at most {MOST}.", ""]
    for alpha in (0.05, 0.05 / 3):
        lines += [f"## {100 * (1 - alpha):.3g} % sure", ""]
        lines += ["| machine | speed / limit | passed | refused | too busy to tell | passed by the point | rounds |", "|---|---:|---:|---:|---:|---:|---:|"]
        lines += [*(row(machine, times, alpha) for machine in MACHINES for times in TIMES), ""]
    policy = Policy.model_validate(
        {"metric": "accuracy", "baseline": {"margin": 0.05}, "champion": {"margin": 0.05}, "loss_budget": 0.1, "draws": 1000, "choose": "smallest"}
    )
    lines += ["## The floor, 95 % sure", "", f"{FLOOR_SAMPLES:,} samples each, 1,000 draws.", ""]
    lines += ["| examples | floor | true value above it | reached by the bound | reached by the point |", "|---:|---:|---:|---:|---:|"]
    lines += [floor_row(count, floor, above, policy) for count in (300, 1000, 2000) for floor in (0.6, 0.9) for above in (0.0, 0.02, 0.05)]
    RESULT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
