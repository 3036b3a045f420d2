"""How much of a recipe's table is chance? The same recipe from several seeds, each in a fresh clone with stores of its own, one after another.

    python -m studies.seeds recipes/quickstart.yaml --seeds 0 1 2 --date 2026-11-20 --machine "2 cores AMD EPYC, CPU only"     (the recipe's time, three times)

Writes ``studies/results/NAME_seeds.json`` and ``.md``: for each model the mean over the seeds and its spread, and what the gate said each time. A seed moves
the first weights of the head, the order of the examples, dropout and every draw. Data that a recipe needs comes as in any clone, or from ``RECOMPRESS_DATA_MIRROR``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

COLUMNS = {"MB": ("size_bytes", 1e-6, 1), "p50 ms": ("latency_p50_ms", 1, 2), "x faster": ("latency_ratio", 1, 1)}


def run_with(seed: int, recipe: Path) -> dict[str, Any]:
    """What a run of the recipe from this seed told, in a clone of what is committed here."""
    with tempfile.TemporaryDirectory(prefix="recompress-seed-") as place:
        clone = Path(place) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(clone)], check=True)
        text = (clone / recipe).read_text(encoding="utf-8")
        seeded, count = re.subn(r"(?m)^seed: .*$", f"seed: {seed}", text)
        if count != 1:
            raise SystemExit(f"{recipe} should have one line 'seed: …', it has {count}")
        (clone / recipe).write_text(seeded, encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(clone)}
        completed = subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", str(recipe), "--json"], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if completed.returncode not in (0, 4):
            raise SystemExit(f"seed {seed}: the run ended with {completed.returncode}")
        outcome: dict[str, Any] = json.loads(completed.stdout)
        return {key: outcome[key] for key in ("evaluations", "verdicts", "promotion")}


def spread(values: list[float], digits: int) -> str:
    """Mean, and the lowest and highest value."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(runs: dict[int, dict[str, Any]]) -> list[str]:
    metric = next(iter(next(iter(runs.values()))["verdicts"].values()))["metric"]
    models = [evaluation["model"] for evaluation in next(iter(runs.values()))["evaluations"]]
    lines = [
        f"| model | {metric}, % | loss against its own baseline, points | {' | '.join(COLUMNS)} | passed | champion |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in models:
        rows = {seed: {e["model"]: e["metrics"] for e in outcome["evaluations"]} for seed, outcome in runs.items()}
        scores = [100 * row[model][metric] for row in rows.values()]
        losses = [100 * (row["baseline"][metric] - row[model][metric]) for row in rows.values()]
        measured = [spread([row[model][key] * factor for row in rows.values()], digits) for key, factor, digits in COLUMNS.values()]
        passed = sum(outcome["verdicts"].get(model, {}).get("passed", False) for outcome in runs.values())
        chosen = sum(outcome["promotion"]["model"] == model for outcome in runs.values())
        of = f"of {len(runs)}"
        decisions = ["–", "–"] if model == "baseline" else [f"{passed} {of}", f"{chosen} {of}"]
        lines.append(f"| {' | '.join([model, spread(scores, 1), spread(losses, 1), *measured, *decisions])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default="")
    parser.add_argument("--out", type=Path, default=Path("studies/results"))
    args = parser.parse_args()
    runs = {}
    for seed in args.seeds:
        print(f"seed {seed}", file=sys.stderr)
        runs[seed] = run_with(seed, args.recipe)
    name = f"{args.recipe.stem}_seeds"
    head = [f"# {args.recipe.name} from {len(runs)} seeds", "", f"`python -m studies.seeds {args.recipe} --seeds {' '.join(map(str, runs))}`", ""]
    head += [f"{args.date}, {args.machine}. Mean, lowest and highest over the seeds.", ""]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.md").write_text("\n".join([*head, *table(runs)]) + "\n", encoding="utf-8")
    (args.out / f"{name}.json").write_text(json.dumps({"date": args.date, "machine": args.machine, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
