"""Which column is the text and which one the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.errors import InputError

TEXT = ("text", "sentence", "content", "message", "body", "tweet", "comment", "review", "description", "document", "utterance", "question", "headline", "title")
LABEL = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "tag", "type")
MOST_LABELS = 1000


@dataclass(frozen=True)
class Columns:
    """The columns of a table, or keys of JSON lines."""

    text: str
    label: str
    others: tuple[str, ...]


def columns_of(rows: Sequence[dict[str, Any]], path: Path) -> Columns:
    """By name where a name says it, else by what stands there: the text is what is longest, the label what repeats. Raises ``InputError`` with what there is."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        raise InputError(f"{path} holds no rows")
    text = _by_name(names, TEXT) or _longest(names, rows)
    rest = [name for name in names if name != text]
    label = _by_name(rest, LABEL) or _repeating(rest, rows)
    if text is None or label is None:
        raise InputError(
            f"of the columns {', '.join(names)} of {path}, none is plainly the {'text' if text is None else 'label'}; "
            f"call it {TEXT[0] if text is None else LABEL[0]!r}, or write params.yaml by hand"
        )
    return Columns(text, label, tuple(name for name in rest if name != label))


def _by_name(names: Sequence[str], known: Sequence[str]) -> str | None:
    return next((name for word in known for name in names if name.strip().lower() == word), None)


def _longest(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str | None:
    lengths = {name: sum(len(row[name]) for row in rows if isinstance(row.get(name), str)) for name in names}
    return max(lengths, key=lengths.__getitem__) if any(lengths.values()) else None


def _repeating(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str | None:
    values = {name: {str(row.get(name)) for row in rows} for name in names}
    possible = [name for name in names if 2 <= len(values[name]) <= min(MOST_LABELS, len(rows) // 5)]
    return min(possible, key=lambda name: len(values[name])) if possible else None
