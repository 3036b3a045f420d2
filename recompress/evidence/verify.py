"""Checking a bundle: no server, no network, nothing but the bundle and the public key.

In this order, and the first thing that does not hold is named: the signature of the list, every file against the list, the chain of the ledger and its signed
head, what the documents say of each other, the model's own signature, and the model's files where they are given.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.digest import FileEntry, canonical_json, check_manifest, sha256_file, sha256_json
from recompress.errors import InputError, IntegrityError
from recompress.evidence.agreement import Documents, agree
from recompress.evidence.archive import MAX_FILES, check_path, unpack
from recompress.evidence.broken import BundleBroken
from recompress.evidence.bundle import FORMAT, LIST, MODEL, PURPOSE, SIGNATURE, entries_of, is_plain_base64
from recompress.evidence.model_signature import check_signed_files, check_signed_model, installed
from recompress.evidence.provenance import open_envelope
from recompress.ledger import LedgerBroken, read_lines, verify
from recompress.ledger.anchor import check_head
from recompress.model_files import LEFT_OUT, MANIFEST_FILE, MODEL_FOLDER, check_version, read_manifest
from recompress.signing import check_signature, key_id, public_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class BundleReport:
    """A bundle that holds: what it is about, and what was checked."""

    model: str
    version: str
    plan: str
    kind: str
    model_sha256: str
    ledger_head: str
    approver: str | None
    promoted_at: str
    key_id: str
    files: int
    checked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_bundle(path: Path, key: Ed25519PublicKey, *, model: Path | None = None, model_key: str | None = None) -> BundleReport:
    """Check a bundle, a folder or a zip of one. ``key`` is the project's public key, had from somewhere else: the one inside proves nothing.

    ``model`` is the version's files or the model directory alone; ``model_key`` (PEM) the model-signing key, where that is pinned too. Raises ``BundleBroken``
    that names the first bad file, and ``InputError`` when there is no bundle.
    """
    with _opened(path) as folder:
        said = _check_list(folder, key)
        head, documents = _check_ledger(folder, key), _documents(folder)
        checked = [f"{len(said['files'])} files are as listed, and the list is signed", f"{head.sequence:,} records of the ledger chain up to its signed head"]
        files = _check_model_manifest(folder, documents)
        checked.append(agree(documents, said, head, files))
        _check_envelope(folder, key, documents)
        checked += _check_signature(folder, files, model_key)
        checked += _check_model(folder, files, documents.committed["manifest_sha256"], model)
    return BundleReport(
        model=said["model"],
        version=said["version"],
        plan=said["plan"],
        kind=documents.plan["kind"],
        model_sha256=said["model_sha256"],
        ledger_head=str(head),
        approver=documents.approver,
        promoted_at=documents.chain[-1].time,
        key_id=key_id(key),
        files=len(said["files"]),
        checked=tuple(checked),
    )


def named_key(folder: Path) -> str:
    """The public key (PEM) that a bundle says it was signed with: good for choosing among keys that are trusted, and for nothing else."""
    return str(_read(folder, SIGNATURE).get("key"))


@contextmanager
def _opened(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="recompress-evidence-") as place:
            yield unpack(path, Path(place))
    else:
        raise InputError(f"there is no bundle at {path}; give its folder, or a zip of it")


def _check_list(folder: Path, key: Ed25519PublicKey) -> dict[str, Any]:
    """The signed list, after every file was compared with it."""
    found = dict(_walk(folder))
    said, signed = _read(folder, LIST), _read(folder, SIGNATURE)
    try:
        files = entries_of(said["files"])
        if said["format"] != FORMAT:
            raise BundleBroken(LIST, f"it is of format {str(said['format'])[:60]!r}; this version reads {FORMAT!r}")
        for file in files:
            check_path(file.path)
        if [*files] != sorted({file.path: file for file in files}.values()) or any(type(said[name]) is not str for name in said.keys() - {"files"}):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise BundleBroken(LIST, "it is not a list of the files of this folder, by path, size and sha256") from None
    _check_list_signature(said, signed, key)
    for name, message in _differences(folder, files, found):
        raise BundleBroken(name, message)
    return said


def _check_list_signature(said: dict[str, Any], signed: dict[str, Any], key: Ed25519PublicKey) -> None:
    """Raises ``BundleBroken`` that names the list or its signature, whichever was changed."""
    try:
        if signed.keys() != {"key", "sha256", "signature"} or not is_plain_base64(signed["signature"]):
            raise ValueError
        check_signature(key, PURPOSE, said, signed["signature"])
    except (ValueError, TypeError):
        raise BundleBroken(SIGNATURE, "it is not a signature") from None
    except IntegrityError as error:
        raise BundleBroken(SIGNATURE if signed["sha256"] == sha256_json(said) else LIST, str(error)) from None
    if signed["key"] != public_pem(key) or signed["sha256"] != sha256_json(said):
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


def _differences(folder: Path, files: tuple[FileEntry, ...], found: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """What is missing, not listed or changed, in the order of names."""
    listed = {file.path: file for file in files}
    for name in sorted(listed.keys() | found.keys() - {LIST, SIGNATURE}):
        if name not in found:
            yield name, f"it is missing from {folder}; the list names it"
        elif name not in listed:
            yield name, f"it stands in {folder}, but not in the list"
        elif found[name].stat().st_size != listed[name].size or (digest := sha256_file(found[name])) != listed[name].sha256:
            size = found[name].stat().st_size
            yield (
                name,
                f"it was changed: {size:,} bytes, {listed[name].size:,} are listed" if size != listed[name].size else f"it was changed; sha256 {digest[:12]}…",
            )


def _check_ledger(folder: Path, key: Ed25519PublicKey):  # type: ignore[no-untyped-def]
    try:
        head = check_head(_read(folder, "ledger-head.json"), key)
    except IntegrityError as error:
        raise BundleBroken("ledger-head.json", str(error)) from None
    try:
        return verify(read_lines(folder / "ledger.jsonl"), head=head)
    except LedgerBroken as error:
        raise BundleBroken("ledger.jsonl", str(error)) from None


def _documents(folder: Path) -> Documents:
    names = ("plan.json", "verdict.json", "evaluations.json", "policy.json", "recipe.json", "data-check.json", "statement.json", "bom.cdx.json")
    return Documents({name: _read(folder, name) for name in names}, list(read_lines(folder / "ledger.jsonl")))


def _check_model_manifest(folder: Path, documents: Documents) -> tuple[FileEntry, ...]:
    name, manifest = "model-manifest.json", documents.committed["manifest_sha256"]
    with tempfile.TemporaryDirectory(prefix="recompress-manifest-") as place:
        (Path(place) / MANIFEST_FILE).write_bytes((folder / name).read_bytes() if (folder / name).is_file() else b"")
        try:
            return read_manifest(Path(place), manifest)
        except IntegrityError as error:
            raise BundleBroken(name, str(error).replace(f" in {place}", "")) from None


def _check_envelope(folder: Path, key: Ed25519PublicKey, documents: Documents) -> None:
    name = "statement.dsse.json"
    try:
        payload = open_envelope(_read(folder, name), key)
    except IntegrityError as error:
        raise BundleBroken(name, str(error)) from None
    if payload != canonical_json(documents["statement.json"]):
        raise BundleBroken(name, "it holds another statement than statement.json")


def _check_signature(folder: Path, files: tuple[FileEntry, ...], pinned: str | None) -> list[str]:
    """The OpenSSF signature, against the files that the manifest names."""
    place, key = folder / "model.sig", folder / "model-signing.pub.pem"
    if not place.is_file():
        if pinned is not None:
            raise BundleBroken("model.sig", "there is none, but a model-signing key was given")
        return []
    try:
        pem = key.read_text(encoding="utf-8")
        if pinned is not None and pem.strip() != pinned.strip():
            raise BundleBroken(key.name, "it is another model-signing key than the one that was given")
        check_signed_files(place.read_text(encoding="utf-8"), pem, _model_files(files))
    except (OSError, UnicodeDecodeError):
        raise BundleBroken(key.name, "it is missing or no text") from None
    except BundleBroken:
        raise
    except IntegrityError as error:
        raise BundleBroken(place.name, str(error)) from None
    return ["the OpenSSF signature is over the same files"]


def _check_model(folder: Path, files: tuple[FileEntry, ...], manifest_sha256: str, given: Path | None) -> list[str]:
    """The model's files, where they stand in the bundle or are given."""
    checked = []
    inside = folder / MODEL if (folder / MODEL).is_dir() else None
    for place in [p for p in (inside, given) if p is not None]:
        name = MODEL if place == inside else str(place)
        whole = (place / MANIFEST_FILE).is_file()
        model = place / MODEL_FOLDER if whole else place
        try:
            if place == inside and (place / LEFT_OUT[1]).exists():
                raise IntegrityError(f"{LEFT_OUT[1]} stands there, which no manifest lists")
            if whole:
                check_version(place, manifest_sha256)
            else:
                check_manifest(place, _model_files(files))
            if (folder / "model.sig").is_file() and installed():
                check_signed_model(model, folder / "model.sig", folder / "model-signing.pub.pem")
        except IntegrityError as error:
            raise BundleBroken(name, str(error)) from None
        checked.append(f"{len(files) if whole else len(_model_files(files))} files of the model are those that were promoted ({name})")
    return checked


def _model_files(files: tuple[FileEntry, ...]) -> list[FileEntry]:
    inside = f"{MODEL_FOLDER}/"
    return [FileEntry(file.path.removeprefix(inside), file.size, file.sha256) for file in files if file.path.startswith(inside)]


def _read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON document in its one canonical form. Raises ``BundleBroken``."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BundleBroken(name, f"it is missing from {folder}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleBroken(name, f"it has more than {MAX_JSON_BYTES:,} bytes")
    data = path.read_bytes()
    try:
        said = json.loads(data)
        if not isinstance(said, dict) or canonical_json(said) != data:
            raise ValueError
    except (ValueError, RecursionError):
        raise BundleBroken(name, "it is not an object in canonical JSON; it was changed") from None
    return said
