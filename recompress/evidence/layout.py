"""How a bundle is laid out: what its own files are called, and the two notations that its writer and its checker share."""

from __future__ import annotations

import base64
from typing import Any

from recompress.integrity.digest import FileEntry

FORMAT = "recompress evidence 1"
LIST, SIGNATURE = "bundle.json", "bundle.sig.json"
PURPOSE = "evidence-bundle"
MODEL = "model"
"""A folder that may hold the version's files; they are listed by ``model-manifest.json``, not by ``bundle.json``."""


def is_plain_base64(text: str) -> bool:
    """Whether no other text stands for the same bytes: the last character of base64 has bits that decoders ignore."""
    return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text


def entries_of(rows: Any) -> tuple[FileEntry, ...]:
    """The files that a list names. Raises ``ValueError`` or ``TypeError`` for anything that is not a list of [path, size, sha256]."""
    entries = tuple(FileEntry(path, size, sha256) for path, size, sha256 in rows)
    if any(type(f.path) is not str or type(f.size) is not int or type(f.sha256) is not str for f in entries):
        raise TypeError("an entry is path, size and sha256")
    return entries
