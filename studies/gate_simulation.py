"""Does the gate keep its promises? Simulated candidates whose true loss is known, judged thousands of times.

    python -m studies.gate_simulation --repeats 2000 --date 2026-11-20 --machine "2 cores AMD EPYC, CPU only"     (about an hour on one core)
    python -m studies.gate_simulation --repeats 40 --out /somewhere/else                                          (a minute, to see that it runs)

Writes ``studies/results/gate_simulation.json`` and ``.md``: how often a candidate exactly at the margin passes, by kind of bound; how often a good one
passes; what Holm's correction does across slices; and what 20 recompressions in a row lose in all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recompress.gate.comparisons import compare, findings_of
from recompress.gate.measured import Measured
from recompress.gate.statistics import LossEstimate, Metric, Stratum, estimate_loss, pair
from recompress.policy import Policy
from recompress.records import Evaluation
from studies.gate_intervals import bounds
from studies.gate_populations import POPULATIONS, Pair, accuracy, texts
from studies.simulation import heading, options, tell, write

DRAWS, ALPHA, POWER = 1_000, 0.05, 0.8
SIZES = (50, 100, 200, 500, 1000, 2000)
AT_THE_MARGIN = ((0.01, 0.0), (0.02, 0.0), (0.03, 0.02), (0.05, 0.05))
"""(margin, churn): the candidate's true loss is the margin."""
Rows = list[dict[str, Any]]


def one_estimate(stratum: Stratum, metric: Metric, rng: np.random.Generator) -> tuple[LossEstimate, np.ndarray, np.ndarray]:
    """As the gate does it for one stratum, but with the draws' weights kept."""
    weights = rng.multinomial(stratum.examples, stratum.times / stratum.examples, size=DRAWS).astype(float)
    totals = weights @ stratum.rows
    return estimate_loss([stratum], totals, metric), totals, weights


def sample(counts: Pair) -> Stratum:
    return pair(counts[0], counts[1], [""] * len(counts[0]))[""]


def error_rate(repeats: int) -> Rows:
    """Share of samples in which each bound lies below the margin though the true loss is the margin: at most 5 % are wanted."""
    rows: Rows = []
    for kind, (draw, metric, _) in POPULATIONS.items():
        for n in SIZES:
            for margin, churn in AT_THE_MARGIN:
                rng, passes = np.random.default_rng(1), dict[str, int]()
                for _ in range(repeats):
                    stratum = sample(draw(rng, n, margin, churn))
                    estimate, totals, weights = one_estimate(stratum, metric, rng)
                    studentize = weights if totals.shape[1] <= 6 else None
                    for name, bound in bounds(estimate, stratum, totals, studentize, metric, ALPHA).items():
                        passes[name] = passes.get(name, 0) + (bound < margin)
                passes_percent = {name: None if name == "studentized" and kind.startswith("macro") else 100 * count / repeats for name, count in passes.items()}
                rows.append({"metric": kind, "examples": n, "margin": margin, "churn": churn, "passes_percent": passes_percent})
                tell(rows[-1])
    return rows


def power(repeats: int) -> Rows:
    """Share of samples in which a candidate of a given true loss passes the gate's bound, and in which the sample is called large enough."""
    rows: Rows = []
    for kind in ("accuracy", "F1"):
        draw, metric, _ = POPULATIONS[kind]
        for n in SIZES[2:]:
            for margin in (0.02, 0.03):
                for part in (0.0, 0.5, 1.0):
                    rng, bound = np.random.default_rng(2), np.zeros((repeats, 2), dtype=bool)
                    for i in range(repeats):
                        estimate, *_ = one_estimate(sample(draw(rng, n, part * margin, 0.02)), metric, rng)
                        bound[i] = estimate.upper(ALPHA) < margin, estimate.smallest_detectable(ALPHA, POWER) <= margin
                    shares = {"bound": bound[:, 0].mean(), "sample": bound[:, 1].mean(), "both": bound.all(1).mean()}
                    percent = {name: 100 * float(value) for name, value in shares.items()}
                    rows.append({"metric": kind, "examples": n, "margin": margin, "true_loss": part * margin, "passes_percent": percent})
                    tell(rows[-1])
    return rows


def measured(name: str, counts: np.ndarray, slices: list[str]) -> Measured:
    evaluation = Evaluation(model=name, model_sha256="0" * 64, dataset_sha256="0" * 64, metrics={"accuracy": float(accuracy(counts.sum(0)))}, slices={})
    return Measured(evaluation, [str(i) for i in range(len(counts))], slices, [()] * len(counts), counts)


def slices(repeats: int) -> Rows:
    """Three slices of 1,000 texts, a margin of 0.03 in each and 0.05 on the whole: how often does the gate let the candidate through?"""
    names = ("hau", "swa", "yor")
    side = {"margin": 0.05, "slices": dict.fromkeys(names, 0.03)}
    policy = Policy.model_validate({"metric": "accuracy", "baseline": side, "champion": side, "loss_budget": 0.5, "draws": DRAWS, "choose": "best"})
    cases = {"all three lose nothing": (0, 0, 0), "one at its margin, two lose nothing": (0.03, 0, 0), "all three at their margins": (0.03, 0.03, 0.03)}
    rows: Rows = []
    for case, losses in cases.items():
        rng, passed = np.random.default_rng(3), 0
        for _ in range(repeats):
            ours, theirs = (np.concatenate(both) for both in zip(*(texts(rng, 1000, loss, 0.02) for loss in losses), strict=True))
            where = [name for name in names for _ in range(1000)]
            comparison = compare(policy, lambda t: {"accuracy": accuracy(t)}, measured("c", ours, where), measured("b", theirs, where), "baseline", ALPHA)
            passed += all(finding.passed for finding in findings_of(policy, comparison, ALPHA))
        rows.append({"case": case, "passes_percent": 100 * passed / repeats})
        tell(rows[-1])
    return rows


def budget(repeats: int, *, recompressions: int = 20, n: int = 2000, margin: float = 0.02, limit: float = 0.05, churn: float = 0.01) -> Rows:
    """Twenty recompressions in a row, each truly losing a little against the champion of its time. ``over``: the true total left the budget."""
    rows: Rows = []
    for fresh in (True, False):
        for step in (0.0, 0.002, 0.004, 0.008):
            for rule in ("no budget", "measured loss", "upper bound"):
                rng = np.random.default_rng(4)
                histories = [one_history(rng, rule, step, fresh, recompressions, n, margin, limit, churn) for _ in range(repeats)]
                totals, promoted = np.array([h[0] for h in histories]), np.array([h[1] for h in histories])
                row = {"test_split": "fresh each time" if fresh else "the same", "true_loss_each": step, "charged": rule}
                rows.append(row | {"over_percent": 100 * float((totals > limit).mean()), "total_mean": totals.mean(), "promoted_mean": promoted.mean()})
                tell(rows[-1])
    return rows


def one_history(
    rng: np.random.Generator, rule: str, step: float, fresh: bool, recompressions: int, n: int, margin: float, limit: float, churn: float
) -> tuple[float, int]:
    """True total loss of the last champion against the first, and the number of promotions."""
    right = 0.8
    champion, spent, promoted = rng.random(n) < right, 0.0, 0
    for _ in range(recompressions):
        if fresh:
            champion = rng.random(n) < right
        u = rng.random(n)
        candidate = np.where(champion, u >= (step + churn) / right, u < churn / (1 - right))
        estimate, *_ = one_estimate(_merged(candidate, champion), accuracy, rng)
        upper = estimate.upper(ALPHA)
        cost = {"no budget": -np.inf, "measured loss": estimate.loss, "upper bound": upper}[rule]
        if upper < margin and estimate.smallest_detectable(ALPHA, POWER) <= margin and spent + (upper if rule != "no budget" else cost) <= limit:
            spent, right, champion, promoted = max(0.0, spent + cost), right - step, candidate, promoted + 1
    return 0.8 - right, promoted


def _merged(candidate: np.ndarray, champion: np.ndarray) -> Stratum:
    """The same as ``sample`` for texts that are right or wrong, without sorting them."""
    times = np.bincount(2 * candidate.astype(np.int64) + champion, minlength=4)
    rows = np.array([[ours, 1.0, theirs, 1.0] for ours in (0, 1) for theirs in (0, 1)])
    return Stratum(rows[times > 0], times[times > 0])


def as_markdown(result: dict[str, Any]) -> str:
    names = list(result["error_rate"][0]["passes_percent"])
    lines = ["# What the gate's statistics really do", "", f"`{result['command']}`", "", f"{result['date']}, {result['machine']}, {result['versions']}", ""]
    lines += [
        f"{result['repeats']:,} samples for each line, {DRAWS:,} draws each; bounds at 95 %. Every line has a seed of its own and can be made again alone.",
        "",
        "## A candidate exactly at the margin passes in … % of samples",
        "",
    ]
    lines += ["Wanted: 5 at most. The gate uses the last column.", "", "| metric | examples | margin | churn | " + " | ".join(names) + " |"]
    lines += ["|---|---:|---:|---:|" + "---:|" * len(names)]
    for row in result["error_rate"]:
        cells = ["–" if value is None else f"{value:.1f}" for value in row["passes_percent"].values()]
        lines.append(f"| {row['metric']} | {row['examples']:,} | {row['margin']} | {row['churn']} | " + " | ".join(cells) + " |")
    worst = {name: max(row["passes_percent"][name] or 0 for row in result["error_rate"]) for name in names}
    lines.append("| **worst** | | | | " + " | ".join(f"**{value:.1f}**" for value in worst.values()) + " |")
    lines += ["", "## How often a candidate of a known true loss passes, % (churn 0.02)", ""]
    lines += ["| metric | examples | margin | true loss | bound inside | sample large enough | both |", "|---|---:|---:|---:|---:|---:|---:|"]
    for row in result["power"]:
        cells = " | ".join(f"{value:.1f}" for value in row["passes_percent"].values())
        lines.append(f"| {row['metric']} | {row['examples']:,} | {row['margin']} | {row['true_loss']} | {cells} |")
    lines += [
        "",
        f"## Three slices of 1,000, margin 0.03 each, Holm's correction ({result['repeats'] // 2:,} samples)",
        "",
        "| case | passes, % |",
        "|---|---:|",
    ]
    lines += [f"| {row['case']} | {row['passes_percent']:.1f} |" for row in result["slices"]]
    lines += ["", f"## Twenty recompressions in a row: margin 0.02, budget 0.05, 2,000 examples ({result['repeats'] // 4:,} histories)", ""]
    lines += ["| test split | true loss of each | charged | histories that left the budget, % | true total loss, mean | promotions, mean |"]
    lines += ["|---|---:|---|---:|---:|---:|"]
    for row in result["budget"]:
        numbers = f"{row['over_percent']:.1f} | {row['total_mean']:.4f} | {row['promoted_mean']:.1f}"
        lines.append(f"| {row['test_split']} | {row['true_loss_each']} | {row['charged']} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    given = options(__doc__, 2000)
    result = heading("gate_simulation", given) | {
        "error_rate": error_rate(given.repeats),
        "power": power(given.repeats),
        "slices": slices(given.repeats // 2),
        "budget": budget(given.repeats // 4),
    }
    write("gate_simulation", given, result, as_markdown)


if __name__ == "__main__":
    main()
