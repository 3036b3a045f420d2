"""Checking a bundle: no server, no network, nothing but the bundle and the public key.

In this order, and the first thing that does not hold is named: the signature of the list, every file against the list, the chain of the ledger and its signed
head, what the documents say of each other, the model's own signature, and the model's files where they are given.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError
from recompress.evidence.agreement import Documents, agree
from recompress.evidence.archive import unpack
from recompress.evidence.attestation_agreement import check_envelopes, present
from recompress.evidence.broken import BundleBroken
from recompress.evidence.file_list import check_list, read_document
from recompress.evidence.layout import MODEL
from recompress.evidence.model_signature import check_signed_files, check_signed_model, installed
from recompress.integrity.digest import FileEntry, check_manifest
from recompress.integrity.model_files import LEFT_OUT, MANIFEST_FILE, MODEL_FOLDER, check_version, read_manifest
from recompress.integrity.signing import key_id
from recompress.ledger import LedgerBroken, read_lines, verify
from recompress.ledger.anchor import check_head

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


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
        listing = check_list(folder, key)
        head, statements = _check_ledger(folder, key), present(folder)
        documents = _documents(folder, statements)
        checked = [
            f"{len(listing['files'])} files are as listed, and the list is signed",
            f"{head.sequence:,} records of the ledger chain up to its signed head",
        ]
        files = _check_model_manifest(folder, documents)
        checked.append(agree(documents, listing, head, files))
        check_envelopes(folder, key, {name: documents[f"{name}.json"] for name in statements})
        checked += _check_signature(folder, files, model_key)
        checked += _check_model(folder, files, documents.committed["manifest_sha256"], model)
    return BundleReport(
        model=listing["model"],
        version=listing["version"],
        plan=listing["plan"],
        kind=documents.plan["kind"],
        model_sha256=listing["model_sha256"],
        ledger_head=str(head),
        approver=documents.approver,
        promoted_at=documents.chain[-1].time,
        key_id=key_id(key),
        files=len(listing["files"]),
        checked=tuple(checked),
    )


@contextmanager
def _opened(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="recompress-evidence-") as place:
            yield unpack(path, Path(place))
    else:
        raise InputError(f"there is no bundle at {path}; give its folder, or a zip of it")


def _check_ledger(folder: Path, key: Ed25519PublicKey):  # type: ignore[no-untyped-def]
    try:
        head = check_head(read_document(folder, "ledger-head.json"), key)
    except IntegrityError as error:
        raise BundleBroken("ledger-head.json", str(error)) from None
    try:
        return verify(read_lines(folder / "ledger.jsonl"), head=head)
    except LedgerBroken as error:
        raise BundleBroken("ledger.jsonl", str(error)) from None


def _documents(folder: Path, statements: tuple[str, ...]) -> Documents:
    names = ["plan.json", "verdict.json", "evaluations.json", "policy.json", "recipe.json", "data-check.json", "bom.cdx.json"]
    names += ["trainings.json"] if (folder / "trainings.json").is_file() else []
    names += [f"{name}.{kind}" for name in statements for kind in ("json", "dsse.json")]
    return Documents({name: read_document(folder, name) for name in names}, list(read_lines(folder / "ledger.jsonl")))


def _check_model_manifest(folder: Path, documents: Documents) -> tuple[FileEntry, ...]:
    name, manifest = "model-manifest.json", documents.committed["manifest_sha256"]
    with tempfile.TemporaryDirectory(prefix="recompress-manifest-") as place:
        (Path(place) / MANIFEST_FILE).write_bytes((folder / name).read_bytes() if (folder / name).is_file() else b"")
        try:
            return read_manifest(Path(place), manifest)
        except IntegrityError as error:
            raise BundleBroken(name, str(error).replace(f" in {place}", "")) from None


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
