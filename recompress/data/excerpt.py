"""What a message shows of a line."""

from __future__ import annotations


def cut(line: str) -> str:
    """A line as it stands in a message: quoted, at most 60 characters."""
    return repr(line if len(line) <= 60 else line[:59] + "…")
