"""What a study says of itself and where it writes: ``studies/results/NAME.json`` and ``.md``, with the date and the machine that somebody names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "studies" / "results"
Results = dict[str, Any]


def arguments(about: str | None, *, in_a_project: bool = False, **numbers: int) -> argparse.Namespace:
    """What ``parser_of`` understands; and whole numbers, with what they are if left out."""
    parser = parser_of(about, in_a_project=in_a_project)
    for name, usual in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    return parser.parse_args()


def parser_of(about: str | None, *, in_a_project: bool = False) -> argparse.ArgumentParser:
    """``--date`` and ``--machine``, and where a study looks at a project ``--project``, this repository if left out."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if in_a_project:
        parser.add_argument("--project", type=Path, default=ROOT)
    parser.add_argument("--date", required=True)
    parser.add_argument("--machine", required=True)
    return parser


def write(name: str, told: argparse.Namespace, measured: Results, page: Callable[[Results], str]) -> None:
    """Write both files, and say what people read."""
    results = {"date": told.date, "machine": told.machine, **measured}
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page(results), encoding="utf-8")
    print(page(results))
