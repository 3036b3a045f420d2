"""Digests: the names by which this project knows bytes, directories and decisions.

Everything is sha256 in lower-case hex. JSON is hashed in its canonical form (RFC 8785), so that a record has one digest however it was written;
a directory is hashed as the sorted manifest of its files (path, size, sha256).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import rfc8785

from recompress.errors import IntegrityError

CHUNK = 1 << 20


class FileEntry(NamedTuple):
    """One line of a manifest: where the file is below its directory, how long it is (bytes), and the sha256 of its bytes."""

    path: str
    size: int
    sha256: str


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for a JSON value (RFC 8785). Raises ``ValueError`` for what JSON cannot say (NaN, sets, tensors)."""
    return rfc8785.dumps(value)


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest(directory: Path, *, leave_out: Iterable[str] = ()) -> tuple[FileEntry, ...]:
    """Every file below ``directory``, sorted by path. Links are refused: what they point to is not part of the directory. Those of a snapshot in a hub's cache are
    read: its client keeps the bytes of all snapshots beside them.

    Raises ``IntegrityError`` when the directory is missing, empty, or holds a link.
    """
    skipped = frozenset(leave_out)
    entries = []
    for parent, folders, files in os.walk(directory):
        for name in (*folders, *files):
            if (link := Path(parent) / name).is_symlink() and not _is_in_hub_cache(link, directory):
                raise IntegrityError(f"{link} is a link; a directory with a digest holds plain files only")
        for name in files:
            path = Path(parent) / name
            if not path.is_file():
                raise IntegrityError(f"{path} is not a plain file; a directory with a digest holds plain files only")
            relative = path.relative_to(directory).as_posix()
            if relative not in skipped:
                entries.append(FileEntry(relative, path.stat().st_size, sha256_file(path)))
    if not entries:
        raise IntegrityError(f"{directory} is missing or empty; expected a directory with files")
    return tuple(sorted(entries))


def _is_in_hub_cache(link: Path, directory: Path) -> bool:
    """Whether a link of ``…/snapshots/COMMIT`` leads to a file in ``…/blobs``."""
    home, target = directory.resolve().parent, link.resolve()
    return home.name == "snapshots" and target.parent == home.parent / "blobs" and target.is_file()


def sha256_manifest(entries: Iterable[FileEntry]) -> str:
    """The digest of a directory: sha256 of the canonical JSON of its sorted manifest."""
    return sha256_json([list(entry) for entry in sorted(entries)])


def sha256_directory(directory: Path, *, leave_out: Iterable[str] = ()) -> str:
    return sha256_manifest(manifest(directory, leave_out=leave_out))


def check_manifest(directory: Path, expected: Iterable[FileEntry], *, leave_out: Iterable[str] = ()) -> None:
    """Compare a directory with its manifest. Raises ``IntegrityError`` that names the first file that is missing, changed, or not listed."""
    wanted = {entry.path: entry for entry in expected}
    for path in wanted:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path:
            raise IntegrityError(f"the manifest names {path!r}, which lies outside its directory")
    entries = {entry.path: entry for entry in manifest(directory, leave_out=leave_out)}
    for path in sorted(wanted.keys() | entries.keys()):
        if path not in entries:
            raise IntegrityError(f"{path} is missing from {directory}; the manifest lists it")
        if path not in wanted:
            raise IntegrityError(f"{path} stands in {directory} but not in its manifest")
        if entries[path] != wanted[path]:
            raise IntegrityError(f"{path} in {directory} has sha256 {entries[path].sha256[:12]}…, the manifest says {wanted[path].sha256[:12]}…")


def check_directory(directory: Path, sha256: str, *, leave_out: Iterable[str] = ()) -> None:
    """Raises ``IntegrityError`` when the directory's digest is not ``sha256``."""
    digest = sha256_directory(directory, leave_out=leave_out)
    if digest != sha256:
        raise IntegrityError(f"{directory} has digest {digest}, expected {sha256}")
