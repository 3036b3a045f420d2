"""The seed study's table and picture, from the report that its recipe left.

    recompress run recipes/seed_study.yaml
    python -m studies.seed_study --date 2026-11-20 --machine "2 cores AMD EPYC, CPU only"

Reads ``reports/seed_study.json`` and writes ``studies/results/seed_study.json``, ``.md`` and ``.svg``: what pruning before and after fine-tuning, students
of two teachers, and 8 bits leave of each language, with size and latency. What the study that this project began with found stands beside it (Awobade, Oduwole
and Kolawole 2024, arXiv:2404.04759).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

NAMES = {"hau": "Hausa", "swa": "Swahili", "yor": "Yorùbá"}
COLOURS = {"hau": "#b45309", "swa": "#2563eb", "yor": "#15803d"}
NOTES = Path(__file__).parent / "seed_study_notes.md"
"""What the table says in words."""
Rows = dict[str, dict[str, Any]]


def rows_of(outcome: dict[str, Any]) -> Rows:
    """For each model its F1 (overall and by language, in %), parameters, bytes, milliseconds, and what the gate said."""
    rows = {}
    for evaluation in outcome["evaluations"]:
        name, metrics = evaluation["model"], evaluation["metrics"]
        rows[name] = {
            "f1": {"all": 100 * metrics["f1"], **{slice_: 100 * scores["f1"] for slice_, scores in evaluation["slices"].items()}},
            "examples": evaluation.get("examples"),
            **{key: metrics[key] for key in ("parameters", "size_bytes", "latency_p50_ms", "latency_ratio")},
            "passed": outcome["verdicts"].get(name, {}).get("passed"),
        }
    return rows


def sparsities(rows: Rows, kind: str) -> list[int]:
    """The levels of ``before`` or ``after`` that were measured, rising."""
    return sorted(int(name.removeprefix(f"{kind}_")) for name in rows if name.startswith(f"{kind}_"))


def table(rows: Rows) -> list[str]:
    dense = rows["baseline"]
    lines = [
        f"| model | F1 | {' | '.join(NAMES.values())} | kept, % | million parameters | MB | x smaller | p50 ms | x faster |",
        "|---|" + "---:|" * (len(NAMES) + 7),
    ]
    for name, row in rows.items():
        scores = [f"{row['f1'][slice_]:.1f}" for slice_ in ("all", *NAMES)]
        size = [f"{row['parameters'] / 1e6:.2f}", f"{row['size_bytes'] / 1e6:.1f}", f"{dense['size_bytes'] / row['size_bytes']:.1f}"]
        retained = f"{100 * row['f1']['all'] / dense['f1']['all']:.1f}"
        speed = [f"{row['latency_p50_ms']:.2f}", f"{row['latency_ratio']:.1f}"]
        lines.append(f"| {' | '.join([name, *scores, retained, *size, *speed])} |")
    return lines


def draw(rows: Rows, place: Path) -> None:
    """Left: F1 of each language by sparsity, pruned before (a line) and after fine-tuning (dashes). Right: F1 by size of everything else."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    dense = rows["baseline"]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recompress", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for slice_, name in NAMES.items():
            for kind, style in (("before", "-"), ("after", "--")):
                levels = sparsities(rows, kind)
                scores = [dense["f1"][slice_], *(rows[f"{kind}_{level}"]["f1"][slice_] for level in levels)]
                left.plot([0, *levels], scores, style, marker="o", markersize=3.5, color=COLOURS[slice_], label=f"{name}, {kind}")
        left.set(xlabel="weights of the encoder that are zero, %", ylabel="entity F1, %", ylim=(0, None))
        left.legend(fontsize=8, frameon=False)
        others = [name for name in rows if not name.startswith(("before_", "after_"))]
        for i, name in enumerate(sorted(others, key=lambda name: rows[name]["size_bytes"])):
            row = rows[name]
            right.scatter(row["size_bytes"] / 1e6, row["f1"]["all"], s=40, color="#b45309" if name == "baseline" else "#2563eb")
            right.annotate(name, (row["size_bytes"] / 1e6, row["f1"]["all"]), xytext=(5, 6 if i % 2 else -12), textcoords="offset points", fontsize=8)
        right.set(xlabel="MB on disk", ylabel="entity F1, % (all languages)", xscale="log")
        right.margins(0.15)
        for axes in (left, right):
            axes.grid(True, color="#d5dae1", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(place, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("reports/seed_study.json"))
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if not args.report.is_file():
        raise SystemExit(f"{args.report} is not there; `recompress run recipes/seed_study.yaml` writes it")
    rows = rows_of(json.loads(args.report.read_text(encoding="utf-8")))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "onnxruntime"))
    args.out.mkdir(parents=True, exist_ok=True)
    head = [
        "# The seed study",
        "",
        "`recompress run recipes/seed_study.yaml && python -m studies.seed_study`",
        "",
        f"{args.date}, {args.machine}. {versions}",
        "",
    ]
    picture = ["", "![F1 by sparsity, and by size](seed_study.svg)", ""]
    notes = NOTES.read_text(encoding="utf-8") if NOTES.is_file() else ""
    (args.out / "seed_study.md").write_text("\n".join([*head, *table(rows), *picture]) + notes, encoding="utf-8")
    result = {"date": args.date, "machine": args.machine, "versions": versions, "rows": rows}
    (args.out / "seed_study.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(rows, args.out / "seed_study.svg")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
