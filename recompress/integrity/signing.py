"""Signatures over JSON: Ed25519 (RFC 8032) over canonical JSON, with the purpose in front, so that a signature for one thing never passes for another.

A private key is a PEM file (PKCS#8) that only its owner may read, made on first use. The public key is PEM too, to be handed out.

What signs is imported when something is signed or checked: whoever only looks waits for none of it.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.digest import canonical_json, sha256_bytes
from recompress.integrity.durable import flush

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_KEY_BYTES = 4096


def signing_key(folder: Path, name: str = "recompress") -> Ed25519PrivateKey:
    """The private key in ``folder/name.pem``, made now if there is none. Processes that make it at once end up with the same one.

    Raises ``IntegrityError`` for a key that others may read or that is no Ed25519 key, and ``StorageError`` when the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / f"{name}.pem"
    if not path.exists():
        write_key(path, Ed25519PrivateKey.generate())
    return read_private_key(path)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if path.stat().st_mode & 0o077:
            raise IntegrityError(f"the key {path} can be read by others; take that away (chmod 600), or make a new key if somebody may have it")
        data = _read(path)
        key = load_pem_private_key(data, password=None)
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IntegrityError(f"{path} is not a private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise IntegrityError(f"{path} is not an Ed25519 key")
    return key


def public_pem(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_public_key(pem: str | Path) -> Ed25519PublicKey:
    """A public key from PEM text or a file. Raises ``InputError``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(pem) if isinstance(pem, Path) else pem.encode())
    except OSError as error:
        raise InputError(f"the public key {pem} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"not a public key in PEM: {str(pem)[:60]!r}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("the public key is not an Ed25519 key")
    return key


def key_id(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The sha256 of the public key's PEM: how people compare keys."""
    return sha256_bytes(public_pem(key).encode())


def sign(key: Ed25519PrivateKey, purpose: str, value: Any) -> str:
    """The signature in base64."""
    return base64.b64encode(key.sign(_message(purpose, value))).decode()


def check_signature(key: Ed25519PublicKey, purpose: str, value: Any, signature: str) -> None:
    """Raises ``IntegrityError`` when ``signature`` was not made by this key, for this purpose, over this value."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature, validate=True), _message(purpose, value))
    except (InvalidSignature, binascii.Error, ValueError):
        raise IntegrityError(f"the signature of the {purpose} does not come from the key {key_id(key)[:12]}…, or what it signs was changed") from None


def _message(purpose: str, value: Any) -> bytes:
    return b"recompress " + purpose.encode() + b"\n" + canonical_json(value)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES)


def write_key(path: Path, key: PrivateKeyTypes) -> None:
    """Write a private key into a new file that only its owner may read; where another process was first, its key stays. Raises ``StorageError``."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(beside, path)  # fails where another process was first, and then its key is the one
        flush(path.parent)
    except OSError as error:
        raise StorageError(f"a key cannot be made in {path.parent}: {error.strerror}; choose a folder that can be written") from None
    finally:
        with suppress(OSError):
            beside.unlink()
