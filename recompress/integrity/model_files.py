"""The manifest of a registered version: which files it consists of, hashed before it may be promoted and again before it is loaded.

A version is a folder: the model directory under ``artifacts/model``, the code that serves it, and ``recompress-manifest.json``, which is written last. The
manifest is canonical JSON, so the sha256 of its own bytes is the digest of the whole folder: that one digest stands in the ledger and on the version.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from recompress.errors import IntegrityError
from recompress.integrity.digest import FileEntry, canonical_json, check_manifest, manifest, sha256_bytes
from recompress.integrity.durable import ends_early, flush
from recompress.integrity.file_kinds import KINDS, WRAPPING, check_kind

MANIFEST_FILE = "recompress-manifest.json"
EXPORT_FILE = "recompress-export.json"
"""What an exported folder says of itself, beside its manifest."""
MODEL_FOLDER = "artifacts/model"
LEFT_OUT = (MANIFEST_FILE, "registered_model_meta")
"""Not in the manifest: itself, and a note that MLflow drops beside a model whenever it loads one. Nobody reads that note."""
MAX_MANIFEST_BYTES = 16 << 20


def check_model_directory(directory: Path) -> None:
    """Raises ``IntegrityError`` that names the first file which no model may hold, or which is broken or cut short."""
    for entry in manifest(directory):
        check_kind(directory, entry.path, KINDS)


def write_manifest(directory: Path) -> str:
    """Write the manifest of a version that is complete, and give its digest. Raises ``IntegrityError`` for a file that a version may not hold."""
    entries = manifest(directory, leave_out=LEFT_OUT)
    _check_kinds(directory, entries)
    data = canonical_json([list(entry) for entry in entries])
    beside = directory / f".{MANIFEST_FILE}.part"
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(directory / MANIFEST_FILE)
    flush(directory)
    return sha256_bytes(data)


def check_version(directory: Path, sha256: str | None) -> tuple[FileEntry, ...]:
    """The files of a version, all of them hashed. ``sha256`` is the digest that the ledger or the registry knows; without one, the folder only agrees with itself.

    Raises ``IntegrityError`` that names the first file which is missing, changed, not listed, not accepted, or cut short.
    """
    entries = read_manifest(directory, sha256)
    check_manifest(directory, entries, leave_out=LEFT_OUT)
    _check_kinds(directory, entries)
    return entries


def read_manifest(directory: Path, sha256: str | None) -> tuple[FileEntry, ...]:
    """What the manifest lists. Raises ``IntegrityError`` when it is missing, is not the one with this digest, or names a place outside its folder."""
    file = directory / MANIFEST_FILE
    if file.is_symlink() or not file.is_file():
        raise IntegrityError(f"{MANIFEST_FILE} is missing from {directory}; the upload was cut off, or the model was not made here")
    with file.open("rb") as stream:
        data = stream.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{MANIFEST_FILE} in {directory} is larger than {MAX_MANIFEST_BYTES:,} bytes")
    if sha256 is not None and (digest := sha256_bytes(data)) != sha256:
        raise IntegrityError(f"{MANIFEST_FILE} in {directory} has sha256 {digest[:12]}…, expected {sha256[:12]}…; it was changed, or belongs to another model")
    try:
        entries = tuple(_entry(*line) for line in json.loads(data))
        if not entries or data != canonical_json([list(entry) for entry in entries]) or list(entries) != sorted({e.path: e for e in entries}.values()):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise IntegrityError(f"{MANIFEST_FILE} in {directory} is not a manifest: a sorted list of [path, size, sha256] in canonical JSON") from None
    for entry in entries:
        _check_path(entry.path)
    return entries


def mend_manifest(directory: Path, sha256: str) -> bool:
    """Write a manifest anew that was cut short, where the files say what it was: whether that was done. ``sha256`` is the digest that the ledger knows.

    A manifest follows from the files, so nothing but the very bytes with that digest is ever written. One that says something else was changed, and stays.
    """
    file = directory / MANIFEST_FILE
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_MANIFEST_BYTES:
        return False
    data = file.read_bytes()
    if sha256_bytes(data) == sha256:
        return False
    whole = canonical_json([list(entry) for entry in manifest(directory, leave_out=LEFT_OUT)])
    if sha256_bytes(whole) != sha256 or not whole.startswith(data.rstrip(b"\0")):
        return False
    write_manifest(directory)
    return True


def cut_file(directory: Path, sha256: str) -> str | None:
    """The first file of a version that is missing or ends before its listed size, the manifest first; ``None`` for one of which all is there, changed or not."""
    try:
        entries = read_manifest(directory, sha256)
    except IntegrityError:
        try:
            json.loads((directory / MANIFEST_FILE).read_bytes())
        except (OSError, ValueError):  # a list without its end is no JSON
            return MANIFEST_FILE
        return None
    return next((entry.path for entry in entries if ends_early(directory / entry.path, entry.size)), None)


def take_out(directory: Path, sha256: str, into: Path) -> Path:
    """Copy a version's files to ``into``, hashing what is copied, so that nobody can change them between the check and their use. Gives ``into``.

    Files that the manifest does not list are not copied. Raises ``IntegrityError``.
    """
    entries = check_version(directory, sha256)
    for entry in entries:
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with (directory / entry.path).open("rb") as source, target.open("xb") as copy:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != entry.sha256:
            raise IntegrityError(f"{entry.path} in {directory} changed while it was read")
    shutil.copyfile(directory / MANIFEST_FILE, into / MANIFEST_FILE)
    read_manifest(into, sha256)
    return into


def _check_kinds(directory: Path, entries: tuple[FileEntry, ...]) -> None:
    for entry in entries:
        check_kind(directory, entry.path, KINDS if entry.path.startswith(f"{MODEL_FOLDER}/") else WRAPPING)
    if not any(entry.path.startswith(f"{MODEL_FOLDER}/") for entry in entries):
        raise IntegrityError(f"{directory} holds no model: nothing stands in {MODEL_FOLDER}")


def _entry(path: str, size: int, sha256: str) -> FileEntry:
    if type(path) is not str or type(size) is not int or type(sha256) is not str:
        raise TypeError
    return FileEntry(path, size, sha256)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise IntegrityError(f"the manifest names {path!r}, which lies outside its directory or is no plain path")
