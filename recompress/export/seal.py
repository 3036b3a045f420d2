"""The list of an exported folder's files, each with its digest, signed where there is a key: whoever gets the folder can tell that nothing in it was changed.

``recompress-export.json`` says what was exported and the digest of ``recompress-manifest.json``, which lists every other file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import IntegrityError
from recompress.integrity.digest import canonical_json, check_manifest, manifest, sha256_bytes
from recompress.integrity.durable import flush
from recompress.integrity.model_files import EXPORT_FILE, MANIFEST_FILE, read_manifest
from recompress.integrity.signing import check_signature, public_pem, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LEFT_OUT = (MANIFEST_FILE, EXPORT_FILE)
PURPOSE, LAYOUT = "export", "recompress export 1"


@dataclass(frozen=True)
class Exported:
    """What a folder says of itself, all of it checked."""

    to: str
    facts: dict[str, str]
    files: int
    manifest_sha256: str
    signed: bool


def seal(folder: Path, to: str, facts: Mapping[str, str], key: Ed25519PrivateKey | None) -> str:
    """Write both files into a folder that is complete; the digest of its list."""
    listing = canonical_json([list(entry) for entry in manifest(folder, leave_out=LEFT_OUT)])
    (folder / MANIFEST_FILE).write_bytes(listing)
    statement = {"format": LAYOUT, "to": to, "facts": dict(facts), "manifest_sha256": sha256_bytes(listing)}
    signature = {"key": public_pem(key), "signature": sign(key, PURPOSE, statement)} if key else {}
    (folder / EXPORT_FILE).write_bytes(canonical_json(statement | signature))
    flush(folder)
    return sha256_bytes(listing)


def check_export(folder: Path, key: Ed25519PublicKey | None) -> Exported:
    """Hash every file of an exported folder; with ``key``, check who signed it. Raises ``IntegrityError`` that names what was changed."""
    statement = _read(folder)
    signature, signer = statement.pop("signature", None), statement.pop("key", None)
    if key is not None and (signature is None or signer is None):
        raise IntegrityError(f"{folder / EXPORT_FILE} is not signed, so nobody can tell whether the key's owner exported this folder")
    if key is not None:
        check_signature(key, PURPOSE, statement, str(signature))
    entries = read_manifest(folder, str(statement["manifest_sha256"]))
    check_manifest(folder, entries, leave_out=LEFT_OUT)
    return Exported(statement["to"], statement["facts"], len(entries), statement["manifest_sha256"], key is not None)


def _read(folder: Path) -> dict[str, Any]:
    file = folder / EXPORT_FILE
    try:
        data = file.read_bytes()
        statement: dict[str, Any] = json.loads(data)
        facts = statement["facts"]
        if statement["format"] != LAYOUT or data != canonical_json(statement) or not isinstance(facts, dict) or type(statement["to"]) is not str:
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise IntegrityError(f"{file} is missing, or is none that this version knows; export the model again") from None
    return statement
