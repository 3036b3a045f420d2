from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.errors import IntegrityError
from recompress.integrity.signing import public_pem
from recompress.ledger.anchor import check_head, sign_head
from tests.ledger.chains import chain

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
HEAD = chain(5)[-1].head


def test_a_signed_head_comes_back() -> None:
    signed = sign_head(KEY, HEAD)
    assert check_head(signed, KEY.public_key()) == HEAD
    assert signed["key"] == public_pem(KEY)


@pytest.mark.parametrize(
    "change", [{"sequence": 4}, {"hash": "0" * 64}, {"signature": sign_head(OTHER, HEAD)["signature"]}, {"signature": "?"}, {"hash": None}, {"sequence": True}]
)
def test_a_changed_head_or_the_signature_of_somebody_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        check_head(sign_head(KEY, HEAD) | change, KEY.public_key())
    with pytest.raises(IntegrityError, match="does not come from the key"):
        check_head(sign_head(OTHER, HEAD), KEY.public_key())
    with pytest.raises(IntegrityError, match="a signed head holds"):
        check_head({}, KEY.public_key())
