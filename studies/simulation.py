"""How a simulation of the gate is called, tells of its progress, and is kept: what the studies of the gate have in common."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def options(description: str | None, repeats: int) -> argparse.Namespace:
    """The command line: ``--repeats``, ``--date``, ``--machine`` and ``--out``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default=platform.machine())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def heading(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """What every result says first: the command that made it, when, on what, with which versions."""
    return {
        "command": f"python -m studies.{name} --repeats {given.repeats}",
        "date": given.date,
        "machine": given.machine,
        "versions": f"Python {platform.python_version()}, numpy {np.__version__}",
        "repeats": given.repeats,
    }


def tell(row: dict[str, Any]) -> None:
    """A line of progress."""
    print(json.dumps(row, default=float), file=sys.stderr, flush=True)


def write(name: str, given: argparse.Namespace, result: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    """``NAME.json`` and ``NAME.md``."""
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{name}.json").write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")
    (given.out / f"{name}.md").write_text(page(result), encoding="utf-8")
