"""The results of ``studies.gate_many`` as a page of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# The gate over many candidates and many runs", "", f"`{result['command']}`", ""]
    lines += [f"{result['date']}, {result['machine']}, {result['versions']}, {result['seconds']} s of the processor", ""]
    lines += ["Accuracy; 2,000 test and 1,000 dev examples, margin 0.02, churn 0.02 unless a line says otherwise; budget 5 %, three finalists.", ""]
    lines += [f"## All variants of a recipe at the margin: a false promotion in … % of {result['repeats']:,} recipes", ""]
    lines += _table(
        ("variants", "correlation", "each judged at 5 %", "the gate"),
        [(r["candidates"], r["correlation"], _one(r["each_at_5_percent"]), _one(r["gate_percent"])) for r in result["many_candidates"]],
    )
    lines += [f"## Fifty reruns, each with 20 new variants at the margin: a false promotion in … % of {result['repeats']:,} histories", ""]
    lines += _table(
        ("the adversary", "correlation", "each judged at 5 %", "the gate"),
        [(r["adversary"], r["correlation"], _one(r["each_at_5_percent"]), _one(r["gate_percent"])) for r in result["adversary"]],
    )
    lines += [f"## A year of nights, three finalists each ({result['repeats'] // 4:,} years)", ""]
    lines += [
        "How often the safest passes on the first night, in the first month, all year and in the last month; and years with a false promotion. All in %.",
        "",
    ]
    parts = tuple(result["nights"][0]["passes_percent"])
    lines += _table(
        ("finalists", "correlation", "false promotion", *parts),
        [(r["finalists"], r["correlation"], _one(r["false_percent"]), *map(_one, r["passes_percent"].values())) for r in result["nights"]],
    )
    lines += ["The safest loses nothing, two others lie at the margin, correlation 0.3:", ""]
    lines += _table(
        ("examples", "margin", "false promotion", *parts),
        [(f"{r['examples']:,}", r["margin"], _one(r["false_percent"]), *map(_one, r["passes_percent"].values())) for r in result["nights_by_setting"]],
    )
    lines += ["The same year under other procedures that hold for dependent looks:", ""]
    lines += _table(
        ("procedure", "false promotion", *parts),
        [(r["procedure"], _one(r["false_percent"]), *map(_one, r["passes_percent"].values())) for r in result["procedures"]],
    )
    lines += ["## How often a candidate passes on a fresh split, by its place (%)", ""]
    lines += _table(
        ("examples", "margin", "truly loses", *result["power"][0]["passes_percent"]),
        [(f"{r['examples']:,}", r["margin"], f"{r['loses']:g} of the margin", *map(_one, r["passes_percent"].values())) for r in result["power"]],
    )
    lines += ["## The bound at small levels: its error as a part of the level, at the margin (1 at most is wanted; all samples gone through, 10,000 draws)", ""]
    lines += _table(
        ("examples", "margin", "churn", *result["small_levels"][0]["part_of_level"]),
        [(f"{r['examples']:,}", r["margin"], r["churn"], *(f"{part:.2f}" for part in r["part_of_level"].values())) for r in result["small_levels"]],
    )
    lines += [f"## The same for other metrics: passes at the margin, % of {result['repeats'] // 4:,} samples of 1,000 (margin 0.03, churn 0.02)", ""]
    lines += _table(
        ("metric", *(f"level {100 * float(level):.3g} %" for level in result["other_metrics"][0]["passes_percent"])),
        [(r["metric"], *(f"{value:.2f}" for value in r["passes_percent"].values())) for r in result["other_metrics"]],
    )
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    marks = ["---" if i == 0 else "---:" for i in range(len(head))]
    return [_line(head), "|" + "|".join(marks) + "|", *(_line(row) for row in rows), ""]


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
