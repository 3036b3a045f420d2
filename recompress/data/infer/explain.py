"""How data was understood, for a person to read: settings, counts, and the first rows as they were read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recompress.data.formats.reading import Row
from recompress.data.infer.understood import Understood
from recompress.data.questions import is_question
from recompress.models.heads import head_of

WIDEST = 110
"""Characters of a text that are shown."""


def explain(understood: Understood) -> str:
    """Several lines of plain text."""
    lines = [f"{understood.path}: {understood.benchmark}", "", *as_settings(understood), ""]
    lines += [f"rows      {_counts(understood.rows)}"]
    if understood.labels:
        lines.append(f"{'entities' if head_of(understood.benchmark).tagged else 'labels  '}  {_counts(understood.labels, 12)}")
    if len(understood.slices) > 1:
        lines.append(f"slices    {_counts(understood.slices, 12)}")
    lines.append(f"letters   {', '.join(f'{name} {share:.1%}' for name, share in understood.scripts.items()) or 'none'}")
    lines.append(f"words     {', '.join(f'{name} {count:,}' for name, count in understood.lengths.items())}")
    if understood.columns:
        lines.append(f"columns   {', '.join(understood.columns)}")
    lines += ["", "first rows as they were read:", *(_row(row, tagged=head_of(understood.benchmark).tagged) for row in understood.first)]
    lines += ["", *(f"cannot be read: {problem}" for problem in understood.problems)] if understood.problems else []
    lines += ["", *(f"note: {note}" for note in understood.notes)] if understood.notes else []
    return "\n".join(lines)


def as_settings(understood: Understood) -> list[str]:
    """The entry as it stands in ``params.yaml``, a line a dial, with why behind it. Text is quoted wherever YAML could read something else."""
    lines = []
    for key, value in understood.entry.items():
        line = f"{key}: {as_yaml(value)}"
        lines.append(f"{line:<44}  # {understood.comments[key]}" if key in understood.comments else line)
    return lines


def as_yaml(value: Any) -> str:
    """A value in YAML's flow style: names as they are, all other text in quotes (JSON is YAML)."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, str):
        return (
            value
            if value.isascii() and value.replace("-", "a").replace("_", "a").replace("/", "a").isidentifier() and not _other(value)
            else json.dumps(value, ensure_ascii=False)
        )
    return json.dumps(value)


def _other(word: str) -> bool:
    """Whether YAML reads a word as something else than text."""
    return word.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "na", "inf") or word.startswith("-")


def _row(row: Row, *, tagged: bool) -> str:
    head = f"  {row.split}{'' if row.slice in ('', 'all') else f' {row.slice}'}, line {row.line}: "
    if is_question(row):
        answers = ", ".join(repr(_cut(label)) for label in row.labels if label) or "no answer"
        return f"{head}{_cut(row.words[0])!r}  {answers} in {_cut(row.words[1])!r}  (group {row.group})"
    if tagged:
        return head + _cut(" ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in zip(row.words, row.labels, strict=True)))
    return (
        head
        + (f"{', '.join(map(repr, row.labels))}  " if row.labels else "")
        + " | ".join(repr(_cut(text)) for text in row.words)
        + (f"  (group {row.group})" if row.group else "")
    )


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _counts(counts: Mapping[Any, int], at_most: int = 3) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:at_most])
    return shown + (f" and {len(counts) - at_most:,} more" if len(counts) > at_most else "")


def as_json(understood: Understood) -> dict[str, Any]:
    """The same for a program."""
    values = {key: value for key, value in vars(understood).items() if key not in ("path", "files", "first")}
    rows = [row._asdict() for row in understood.first]
    return {"path": str(understood.path), **values, "files": {name: str(file) for name, file in understood.files.items()}, "first": rows}
