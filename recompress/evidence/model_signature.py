"""The OpenSSF model signature over a model directory, made and checked by the package ``model-signing`` with an elliptic-curve key.

Source: the OpenSSF Model Signing specification 1.0; a DSSE envelope in a Sigstore bundle whose payload lists the sha256 of every file. The envelope is also
checked here, with nothing but ``cryptography``, so that a bundle can be checked where the package is not installed, and without the model's files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import InputError, IntegrityError
from recompress.evidence.provenance import PAYLOAD_TYPE, pae
from recompress.integrity.digest import FileEntry
from recompress.integrity.signing import MAX_KEY_BYTES, write_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

CURVES = ("secp256r1", "secp384r1", "secp521r1")
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PACKAGE = "model_signing"


def installed() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None


def model_key(folder: Path, name: str = "model-signing") -> Path:
    """The private key in ``folder/name.pem``, made now (P-256, readable by its owner only) if there is none. Processes that make it at once end up with the same."""
    path = folder / f"{name}.pem"
    if not path.exists():
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        write_key(path, generate_private_key(SECP256R1()))
    read_model_key(path)
    return path


def read_model_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises ``InputError`` when it cannot be read, and ``IntegrityError`` for a key that others may read or of another kind."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if path.stat().st_mode & 0o077:
            raise IntegrityError(f"the key {path} can be read by others; take that away (chmod 600), or make a new key if somebody may have it")
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(MAX_KEY_BYTES), password=None)
    except OSError as error:
        raise InputError(f"the key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IntegrityError(f"{path} is not a private key in PEM without a password") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise IntegrityError(f"{path} is not an elliptic-curve key over one of {', '.join(CURVES)}")
    return key


def public_model_pem(path: Path) -> str:
    """The public key of a private one."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return read_model_key(path).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign_model(directory: Path, signature: Path, key: Path) -> None:
    """Sign every file below ``directory``. Raises ``InputError`` when the package is not installed."""
    if not installed():
        raise InputError("model-signing is not installed, so no OpenSSF signature can be made; pip install 'recompress[sign]'")
    read_model_key(key)
    from model_signing import signing

    signing.Config().use_elliptic_key_signer(private_key=key).sign(directory, signature)  # type: ignore[no-untyped-call]


def check_signed_files(signature: str, public_key: str, files: Iterable[FileEntry]) -> None:
    """Check the signature, and that it lists just these files with these sha256. Raises ``IntegrityError``."""
    payload = _payload(signature, public_key)
    try:
        statement = json.loads(payload)
        method = statement["predicate"]["serialization"]
        listed = {file["name"]: file["digest"] for file in statement["predicate"]["resources"]}
        if statement["predicateType"] != PREDICATE_TYPE or method["hash_type"] != "sha256" or method["method"] != "files":
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise IntegrityError("the OpenSSF signature is not over the sha256 of single files") from None
    wanted = {file.path: file.sha256 for file in files}
    for path in sorted(wanted.keys() | listed.keys()):
        if wanted.get(path) != listed.get(path):
            raise IntegrityError(f"the OpenSSF signature and the manifest do not say the same of {path}")


def check_signed_model(directory: Path, signature: Path, public_key: Path) -> None:
    """Check a model's files against a signature by the package itself. Raises ``IntegrityError``, and ``InputError`` where it is not installed."""
    if not installed():
        raise InputError("model-signing is not installed; pip install 'recompress[sign]'")
    from model_signing import verifying

    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(directory, signature)  # type: ignore[no-untyped-call]
    except Exception as error:  # the package raises classes of its own and of several others
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise IntegrityError(f"the OpenSSF signature does not hold for {directory}: {reason[:200]}") from None


def _payload(signature: str, public_key: str) -> bytes:
    """What the envelope holds, if this key signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    key = _read_public(public_key)
    try:
        document = json.loads(signature)
        envelope = document["dsseEnvelope"]
        [signed] = envelope["signatures"]
        if envelope["payloadType"] != PAYLOAD_TYPE or document["verificationMaterial"]["publicKey"]["hint"] != hashlib.sha256(public_key.encode()).hexdigest():
            raise ValueError
        payload = base64.b64decode(envelope["payload"], validate=True)
        key.verify(base64.b64decode(signed["sig"], validate=True), pae(PAYLOAD_TYPE, payload), ECDSA(_hash_for(key)))
    except (InvalidSignature, binascii.Error, ValueError, KeyError, TypeError):
        raise IntegrityError("the OpenSSF signature was not made by the model-signing key that stands beside it") from None
    return payload


def _read_public(pem: str) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise IntegrityError("the model-signing key is not a public key in PEM") from None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise IntegrityError(f"the model-signing key is not an elliptic-curve key over one of {', '.join(CURVES)}")
    return key


def _hash_for(key: EllipticCurvePublicKey) -> HashAlgorithm:
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    return {256: SHA256(), 384: SHA384(), 521: SHA512()}[key.curve.key_size]
