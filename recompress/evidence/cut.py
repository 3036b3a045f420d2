"""Whether a bundle was cut short, as a power loss leaves it, and by that can be written anew: what is missing is not what somebody has changed."""

from __future__ import annotations

import json
from pathlib import Path

from recompress.evidence.layout import LIST, SIGNATURE, entries_of
from recompress.integrity.durable import ends_early


def cut_file(folder: Path) -> str | None:
    """The first file of a bundle that is missing, ends before its listed size, or was never filled; ``None`` for a bundle of which all is there.

    Nothing is hashed and no signature is checked: this is no proof that a bundle holds, and a bundle that was altered is none that was cut.
    """
    for name in (LIST, SIGNATURE):
        if not _whole_json(folder / name):
            return name
    try:
        files = entries_of(json.loads((folder / LIST).read_bytes())["files"])
        return next((file.path for file in files if ends_early(folder / file.path, file.size) or _empty_end(folder / file.path)), None)
    except (ValueError, TypeError, KeyError, OSError):
        return None  # a list that is whole and says something else was made so


def _whole_json(path: Path) -> bool:
    """A JSON document that was cut anywhere before its last brace cannot be read."""
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _empty_end(path: Path) -> bool:
    """Some file systems give a file its length before its bytes: it ends in zeros, which no text does."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read(1) == b"\0"
