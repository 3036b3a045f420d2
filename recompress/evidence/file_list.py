"""The list of a bundle's files: read with suspicion, checked against its signature, and held against what stands in the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import IntegrityError
from recompress.evidence.archive import MAX_FILES, check_path
from recompress.evidence.broken import BundleBroken
from recompress.evidence.layout import FORMAT, LIST, MODEL, PURPOSE, SIGNATURE, entries_of, is_plain_base64
from recompress.integrity.digest import FileEntry, canonical_json, sha256_file, sha256_json
from recompress.integrity.signing import check_signature, public_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_JSON_BYTES = 64 << 20


def check_list(folder: Path, key: Ed25519PublicKey) -> dict[str, Any]:
    """The signed list, after every file was compared with it."""
    paths = dict(_walk(folder))
    listing, signed = read_document(folder, LIST), read_document(folder, SIGNATURE)
    try:
        files = entries_of(listing["files"])
        if listing["format"] != FORMAT:
            raise BundleBroken(LIST, f"it is of format {str(listing['format'])[:60]!r}; this version reads {FORMAT!r}")
        for file in files:
            check_path(file.path)
        if [*files] != sorted({file.path: file for file in files}.values()) or any(type(listing[name]) is not str for name in listing.keys() - {"files"}):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise BundleBroken(LIST, "it is not a list of the files of this folder, by path, size and sha256") from None
    _check_list_signature(listing, signed, key)
    for name, message in _differences(folder, files, paths):
        raise BundleBroken(name, message)
    return listing


def _check_list_signature(listing: dict[str, Any], signed: dict[str, Any], key: Ed25519PublicKey) -> None:
    """Raises ``BundleBroken`` that names the list or its signature, whichever was changed."""
    try:
        if signed.keys() != {"key", "sha256", "signature"} or not is_plain_base64(signed["signature"]):
            raise ValueError
        check_signature(key, PURPOSE, listing, signed["signature"])
    except (ValueError, TypeError):
        raise BundleBroken(SIGNATURE, "it is not a signature") from None
    except IntegrityError as error:
        raise BundleBroken(SIGNATURE if signed["sha256"] == sha256_json(listing) else LIST, str(error)) from None
    if signed["key"] != public_pem(key) or signed["sha256"] != sha256_json(listing):
        raise BundleBroken(SIGNATURE, "the key or the digest inside is not that of what was signed")


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file but the model's, by its path in the bundle. Raises ``BundleBroken`` for links, for folders that hold nothing, and for too many files."""
    count = 0
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        if here == folder and MODEL in folders and not (here / MODEL).is_symlink():
            folders.remove(MODEL)
        for name in (*folders, *files):
            relative = (here / name).relative_to(folder).as_posix()
            if (here / name).is_symlink() or (name in files and not (here / name).is_file()):
                raise BundleBroken(relative, "it is a link or no plain file")
        if not folders and not files and here != folder:
            raise BundleBroken(here.relative_to(folder).as_posix(), "it is an empty folder, which the list does not name")
        for name in files:
            count += 1
            if count > MAX_FILES:
                raise BundleBroken(name, f"the bundle holds more than {MAX_FILES:,} files")
            yield (here / name).relative_to(folder).as_posix(), here / name


def _differences(folder: Path, files: tuple[FileEntry, ...], paths: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """What is missing, not listed or changed, in the order of names."""
    listed = {file.path: file for file in files}
    for name in sorted(listed.keys() | paths.keys() - {LIST, SIGNATURE}):
        if name not in paths:
            yield name, f"it is missing from {folder}; the list names it"
        elif name not in listed:
            yield name, f"it stands in {folder}, but not in the list"
        elif paths[name].stat().st_size != listed[name].size or (digest := sha256_file(paths[name])) != listed[name].sha256:
            size = paths[name].stat().st_size
            yield (
                name,
                f"it was changed: {size:,} bytes, {listed[name].size:,} are listed" if size != listed[name].size else f"it was changed; sha256 {digest[:12]}…",
            )


def named_key(folder: Path) -> str:
    """The public key (PEM) that a bundle says it was signed with: good for choosing among keys that are trusted, and for nothing else."""
    return str(read_document(folder, SIGNATURE).get("key"))


def read_document(folder: Path, name: str) -> dict[str, Any]:
    """A JSON document in its one canonical form. Raises ``BundleBroken``."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BundleBroken(name, f"it is missing from {folder}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleBroken(name, f"it has more than {MAX_JSON_BYTES:,} bytes")
    data = path.read_bytes()
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or canonical_json(document) != data:
            raise ValueError
    except (ValueError, RecursionError):
        raise BundleBroken(name, "it is not an object in canonical JSON; it was changed") from None
    return document
