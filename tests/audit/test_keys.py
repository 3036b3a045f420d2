"""Public keys beside private ones: a half that does not fit, a key that was changed behind the ledger's back, and one that was laid there to be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.integrity.signing import public_pem
from recompress.ledger import Ledger
from tasks.ledger.keys import own_key, own_model_key
from tasks.people.audit_keys import KIND, check_keys, note_keys

OTHER = public_pem(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Of a project with both keys, which have signed something."""
    ledger = Ledger(tmp_path / "ledger.db")
    own_key(tmp_path)
    own_model_key(tmp_path)
    assert told(tmp_path, ledger) == []
    for _ in range(2):
        note_keys(tmp_path, ledger)
    assert [entry.body["name"] for entry in ledger.entries(KIND)] == ["recompress", "model-signing"], "each is recorded once"
    assert told(tmp_path, ledger) == []
    return ledger


def told(root: Path, ledger: Ledger) -> list[str]:
    return [f"{trouble.kind} {trouble.where}: {trouble.detail}" for trouble in check_keys(root, ledger)]


@pytest.mark.parametrize("name", ["recompress", "model-signing"])
def test_a_public_half_that_does_not_fit_is_named(tmp_path: Path, ledger: Ledger, name: str) -> None:
    (tmp_path / "keys" / f"{name}.pub.pem").write_text(OTHER)
    [line] = told(tmp_path, ledger)
    assert line.startswith(f"broken keys/{name}.pub.pem: it is not the public half of {name}.pem")


@pytest.mark.parametrize("name", ["recompress", "model-signing"])
def test_a_key_that_was_replaced_whole_is_not_the_one_that_the_ledger_knows(tmp_path: Path, ledger: Ledger, name: str) -> None:
    before = (tmp_path / "keys" / f"{name}.pub.pem").read_text()
    for path in (tmp_path / "keys").glob(f"{name}*"):
        path.unlink()
    [line] = told(tmp_path, ledger)
    assert line.startswith(f"notice keys/{name}.pem: it is gone with its public half")
    own_key(tmp_path)
    own_model_key(tmp_path)
    [line] = told(tmp_path, ledger)
    assert line.startswith(f"broken keys/{name}.pem: the ledger knows the key ")
    (tmp_path / "keys" / f"{name}-2026.pub.pem").write_text(before)
    assert told(tmp_path, ledger) == [], "this is how a person begins with a new key"
    note_keys(tmp_path, ledger)
    assert told(tmp_path, ledger) == []
    assert len(ledger.entries(KIND, name=name)) == 2


def test_a_former_key_that_never_signed_here_is_named(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "keys" / "recompress-2025.pub.pem").write_text(OTHER)
    [line] = told(tmp_path, ledger)
    assert line.startswith("broken keys/recompress-2025.pub.pem: nothing that this ledger knows of was ever signed with the key")


def test_a_private_key_that_is_gone_or_none_is_told(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "keys" / "recompress.pem").unlink()
    (tmp_path / "keys" / "model-signing.pem").write_text("-----BEGIN")
    gone, none = told(tmp_path, ledger)
    assert gone.startswith("notice keys/recompress.pem: it is gone, and only its public half is here")
    assert none.startswith("broken keys/model-signing.pem: ")
