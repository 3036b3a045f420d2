"""What the methods say of themselves: the table of all, and one in full with its dials and an example."""

from __future__ import annotations

from typing import Any

from recompress.methods.registry import FAMILIES, Method, all_methods, get_method
from recompress.settings.allowed import allowed_at

COLUMNS = ("name", "family", "needs", "shrinks", "speeds up", "source")


def describe(name: str) -> dict[str, Any]:
    """One method as plain values. Raises ``InputError`` for a name that is not known."""
    method = get_method(name)
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
            {"name": key, "is": allowed_at(method.config, [key]), "default": field.get_default(), "help": " ".join((field.description or "").split())}
            for key, field in method.config.model_fields.items()
        ],
        "example": example(method),
    }


def describe_all() -> list[dict[str, Any]]:
    order = {family: i for i, family in enumerate(FAMILIES)}
    return [describe(m.name) for m in sorted(all_methods().values(), key=lambda m: (order[m.family], m.name))]


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
