"""What was understood of somebody's data, in lines that a person reads before believing any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recompress.data.infer.understood import Understood

MOST = 10


def lines_of(data: Understood) -> Iterator[str]:
    """Format, columns, benchmark, labels, splits, slices, scripts and lengths, then what was uncertain and what cannot be read."""
    entry = data.entry
    files = f"{len(data.files)} file{'s' if len(data.files) > 1 else ''}"
    yield f"format     {entry['format']}, {files} ({entry['files']})"
    if data.columns:
        used = [
            entry.get(key, key)
            for key in ("question", "text", "label", "answer_start", "group", "slice", "split")
            if key in ("text", "label") or entry.get(key)
        ]
        yield f"columns    {', '.join(data.columns)}; read: {', '.join(str(column) for column in used if column in data.columns)}"
    yield f"benchmark  {data.benchmark}"
    if data.labels:
        yield f"labels     {len(data.labels)}: {_counted(data.labels)}"
    drawn = ", ".join(entry.get("split_off", {}))
    yield f"splits     {_counted(data.rows)}{f'; {drawn} will be drawn from train' if drawn else ''}"
    if len(data.slices) > 1:
        yield f"slices     {_counted(data.slices)}"
    yield f"scripts    {', '.join(f'{name} {100 * share:.3g} %' for name, share in data.scripts.items()) or 'no letters'}"
    yield f"lengths    {', '.join(f'{name} {count}' for name, count in data.lengths.items())} (words)"
    yield from (f"note       {note}" for note in data.notes)
    yield from (f"unreadable {problem}" for problem in data.problems)


def _counted(counts: Mapping[Any, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:MOST])
    return f"{shown} …" if len(counts) > MOST else shown
