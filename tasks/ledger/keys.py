"""Whose keys are whose: the project's own, made on first use, and those of the people who may approve.

``keys/`` is private and never committed; ``keys/*.pub.pem`` are to be handed out. ``approvers/NAME.pem`` are public keys and belong in git: who may add one
there decides who may approve.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import InputError, IntegrityError
from recompress.evidence.model_signature import installed, model_key, public_model_pem, read_model_key
from recompress.integrity.signing import public_pem, read_private_key, read_public_key, signing_key
from recompress.policy import Approval
from recompress.records import ApprovalRule

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

OWN, MODEL = "RECOMPRESS_SIGNING_KEY", "RECOMPRESS_MODEL_SIGNING_KEY"
"""Paths of keys that a team gives instead: Ed25519 for ledger heads and bundles, an elliptic curve for OpenSSF model signatures."""


def own_key(root: Path) -> Ed25519PrivateKey:
    """The key that signs bundles and ledger heads. Its public half is laid beside it.

    Raises ``IntegrityError`` where only the public half is there: with a new key in its place, nobody would believe what the lost one signed.
    """
    override = os.environ.get(OWN)
    public = root / "keys" / "recompress.pub.pem"
    if not override and public.is_file() and not (root / "keys" / "recompress.pem").exists():
        raise IntegrityError(
            f"keys/recompress.pem is gone, but what it signed is not; put it back, or name it in {OWN}; to begin with a new key, "
            "rename keys/recompress.pub.pem to keys/recompress-FORMER.pub.pem, so that older bundles are still believed"
        )
    key = read_private_key(Path(override)) if override else signing_key(root / "keys")
    _lay_out(root, "recompress", public_pem(key))
    return key


def own_public_key(root: Path, path: Path | None = None) -> Ed25519PublicKey:
    """The public key to check with: the one given, or this project's. Raises ``InputError`` where there is neither: the key inside a bundle proves nothing."""
    if path is not None:
        return read_public_key(path)
    private = Path(os.environ.get(OWN) or root / "keys" / "recompress.pem")
    if private.is_file():
        return read_private_key(private).public_key()
    public = root / "keys" / "recompress.pub.pem"
    if not public.is_file():
        raise InputError("there is no key to check with; give the public key of those who made the bundle: --key recompress.pub.pem")
    return read_public_key(public)


def trusted_keys(root: Path) -> list[Ed25519PublicKey]:
    """This project's public key, and those that it had before: ``keys/recompress-….pub.pem``. Empty where there is none yet."""
    former = [read_public_key(path) for path in sorted((root / "keys").glob("recompress-*.pub.pem"))]
    try:
        return [own_public_key(root), *former]
    except InputError:
        return former


def own_model_key(root: Path) -> Path | None:
    """The key for OpenSSF model signatures; ``None`` where the package that makes them is not installed."""
    if not installed():
        return None
    override = os.environ.get(MODEL)
    path = Path(override) if override else model_key(root / "keys")
    read_model_key(path)
    _lay_out(root, "model-signing", public_model_pem(path))
    return path


def approvers(root: Path) -> dict[str, str]:
    """The public key of each person in ``approvers/``; the name of the file is the person's. Raises ``InputError`` for a file that is no public key."""
    keys = {}
    for path in sorted((root / "approvers").glob("*.pem")):
        try:
            keys[path.stem] = public_pem(read_public_key(path))
        except InputError as error:
            raise InputError(f"approvers/{path.name}: {error}") from None
    return keys


def approval_rule(root: Path, approval: Approval) -> ApprovalRule:
    """What a policy says of approvals, with the keys of those who may give them. Raises ``InputError`` when signatures are asked for and nobody's key is known."""
    signers = approvers(root) if approval.signed else {}
    if approval.signed and not signers:
        raise InputError("the policy asks for signed approvals, but approvers/ holds no public key; add one for each person: approvers/NAME.pem")
    return ApprovalRule(
        required=approval.mode == "required",
        expires_after_hours=approval.expires_after_hours,
        not_the_author=approval.not_the_author,
        signed=approval.signed,
        signers=signers,
    )


def _lay_out(root: Path, name: str, pem: str) -> None:
    place = root / "keys" / f"{name}.pub.pem"
    if not place.is_file() or place.read_text(encoding="utf-8") != pem:
        place.parent.mkdir(exist_ok=True, mode=0o700)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        beside.write_text(pem, encoding="utf-8")
        beside.replace(place)
