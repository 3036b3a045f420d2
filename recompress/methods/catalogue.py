"""What the methods say of themselves: the table of all, and one in full with its dials and an example.

It is kept in ``catalogue.json``, which `make docs` writes, because the methods themselves import torch and a question about them need not wait for that. Where
the files of the package hold other methods than it names, they are asked themselves.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from recompress.errors import InputError
from recompress.methods.registry import FAMILIES, Method, all_methods, modules_with_methods
from recompress.settings.allowed import allowed_at
from recompress.settings.file import unknown
from recompress.settings.help import help_of

CATALOGUE = Path(__file__).with_name("catalogue.json")
COLUMNS = ("name", "family", "needs", "shrinks", "speeds up", "source")


def describe(name: str) -> dict[str, Any]:
    """One method as plain values. Raises ``InputError`` for a name that is not known."""
    known = {method["name"]: method for method in describe_all()}
    if name not in known:
        raise InputError(unknown("method", name, known, "recompress methods lists all"))
    return known[name]


@cache
def describe_all() -> tuple[dict[str, Any], ...]:
    """All methods, by family and name."""
    kept: dict[str, Any] = json.loads(CATALOGUE.read_text(encoding="utf-8")) if CATALOGUE.is_file() else {}
    return tuple(kept["methods"] if kept.get("modules") == list(modules_with_methods()) else as_they_are())


def as_they_are() -> list[dict[str, Any]]:
    """All methods, asked themselves."""
    order = {family: i for i, family in enumerate(FAMILIES)}
    return [_described(method) for method in sorted(all_methods().values(), key=lambda method: (order[method.family], method.name))]


def _described(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "family": method.family,
        "summary": method.summary,
        "source": method.source,
        "needs": list(method.needs),
        "shrinks": method.shrinks,
        "speeds_up": method.speeds_up,
        "takes": method.takes,
        "gives": method.gives,
        "benchmarks": list(method.benchmarks),
        "architectures": list(method.architectures),
        "dials": [
            {"name": key, "is": allowed_at(method.config, [key]), "default": field.get_default(), "help": " ".join(help_of(method.config, key).split())}
            for key, field in method.config.model_fields.items()
        ],
        "example": example(method),
    }


def example(method: Method) -> str:
    """The step as a recipe writes it, with every dial at its default."""
    defaults = {key: field.get_default() for key, field in method.config.model_fields.items() if not field.is_required() and field.get_default() is not None}
    return f"- {method.name}: {{{', '.join(f'{key}: {_yaml(value)}' for key, value in defaults.items())}}}"


def explain(name: str) -> str:
    """One method for a person."""
    description = describe(name)
    dials = [f"  {dial['name']} = {_yaml(dial['default'])}  ({dial['is']})\n      {dial['help']}" for dial in description["dials"]]
    return "\n".join(
        [
            f"{description['name']}: {description['summary']}",
            f"  family {description['family']} · needs {', '.join(description['needs']) or 'nothing'} · {description['takes']} → {description['gives']}",
            f"  shrinks {description['shrinks'] or 'nothing'} · speeds up {description['speeds_up'] or 'nothing'}",
            f"  for {', '.join(description['benchmarks'])} on {', '.join(description['architectures'])}",
            f"  source: {description['source']}",
            "",
            "Dials",
            *(dials or ["  none"]),
            "",
            "In a recipe",
            f"  {description['example']}",
        ]
    )


def table(*, markdown: bool = False) -> str:
    """All methods, by family."""
    rows = [(m["name"], m["family"], ", ".join(m["needs"]) or "–", m["shrinks"] or "–", m["speeds_up"] or "–", m["source"]) for m in describe_all()]
    if markdown:
        head = ["# Methods", "", "Made by `make docs`. `recompress methods NAME` explains one, with its dials.", ""]
        return "\n".join([*head, "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *("| " + " | ".join(row) + " |" for row in rows)])
    widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS) - 1)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in (COLUMNS, *rows))


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def write() -> None:
    """Write ``catalogue.json`` anew."""
    kept = {"modules": modules_with_methods(), "methods": as_they_are()}
    CATALOGUE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
