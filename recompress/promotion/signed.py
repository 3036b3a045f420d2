"""Decisions of people that are no answer to a plan: pins, and baselines that are accepted although they are weak. Each is one record, signed where the model's
rule asks for signatures.

    claim = {decision: kind of record, then everything that the record says but for key and signature}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recompress.errors import GateRefused, RecompressError
from recompress.integrity.signing import check_signature, public_pem, read_public_key, sign
from recompress.ledger import Entry, LedgerBroken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PURPOSE = "decision"


def with_signature(kind: str, body: dict[str, Any], key: Ed25519PrivateKey | None, signers: Mapping[str, str] | None, *, about: str) -> dict[str, Any]:
    """The body of a decision as it is recorded. ``signers`` are the public keys of those who may decide; ``None`` where a name is enough.

    Raises ``GateRefused`` for somebody who may not, or who gave no key or another one.
    """
    person = body["person"]
    if signers is None:
        return body if key is None else body | {"key": public_pem(key), "signature": sign(key, PURPOSE, claim(kind, body))}
    if person not in signers:
        raise GateRefused(f"{person} may not decide about {about}; signatures of {', '.join(sorted(signers)) or 'nobody'} count")
    if key is None:
        raise GateRefused(f"a decision about {about} by {person} must be signed; give the private key: --key {person}.pem")
    if public_pem(key) != signers[person]:
        raise GateRefused(f"the key that was given is not {person}'s, whose signature a decision about {about} needs")
    return body | {"key": public_pem(key), "signature": sign(key, PURPOSE, claim(kind, body))}


def check_decision(entry: Entry, signers: Mapping[str, str] | None) -> None:
    """Raises ``LedgerBroken`` for a decision by somebody who may not, or without the signature that is needed. ``signers`` as above."""
    body = entry.body
    if body["person"] != entry.actor:
        raise LedgerBroken(entry.sequence, f"a decision of {entry.actor} names {body['person']!r} as the one who decided")
    if signers is None:
        return
    known = signers.get(entry.actor)
    if known is None or body.get("key") != known or "signature" not in body:
        raise LedgerBroken(entry.sequence, f"{entry.kind} by {entry.actor} lacks the signature of one of {', '.join(sorted(signers)) or 'nobody'}")
    try:
        check_signature(read_public_key(known), PURPOSE, claim(entry.kind, body), body["signature"])
    except RecompressError as error:
        raise LedgerBroken(entry.sequence, str(error)) from None


def counts(entry: Entry, signers: Mapping[str, str] | None) -> bool:
    """Whether a decision is one that these people could have made, with the signature that is needed. ``signers`` as above."""
    try:
        check_decision(entry, signers)
    except LedgerBroken:
        return False
    return True


def claim(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a decision signs."""
    return {"decision": kind, **{name: value for name, value in body.items() if name not in ("key", "signature")}}
