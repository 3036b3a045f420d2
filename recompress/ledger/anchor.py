"""A ledger's head, signed: whoever keeps one can show later that records were cut off or rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recompress.errors import IntegrityError
from recompress.integrity.signing import check_signature, public_pem, sign
from recompress.ledger.entry import Head

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HEAD = "ledger-head"


def sign_head(key: Ed25519PrivateKey, head: Head) -> dict[str, Any]:
    """A ledger's head that can be kept by anybody: ``{sequence, hash, key, signature}``."""
    return {"sequence": head.sequence, "hash": head.hash, "key": public_pem(key), "signature": sign(key, HEAD, list(head))}


def check_head(signed: dict[str, Any], key: Ed25519PublicKey) -> Head:
    """The head inside, if ``key`` signed it. The key that the record names itself proves nothing. Raises ``IntegrityError``."""
    try:
        head = Head.parse(f"{signed['sequence']}:{signed['hash']}")
        signature = str(signed["signature"])
    except (KeyError, TypeError):
        raise IntegrityError("a signed head holds sequence, hash, key and signature") from None
    check_signature(key, HEAD, list(head), signature)
    return head
