from __future__ import annotations

import multiprocessing
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.signing import check_signature, key_id, public_pem, read_public_key, sign, signing_key, write_key
from tests.children import Child

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@given(value=st.dictionaries(st.text(max_size=5), st.integers(0, 100) | st.text(max_size=5), max_size=3), at=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_signature_holds_for_its_key_its_purpose_and_its_value_only(value: dict[str, object], at: int, bit: int) -> None:
    import base64

    signature = sign(KEY, "approval", value)
    check_signature(KEY.public_key(), "approval", value, signature)
    raw = bytearray(base64.b64decode(signature))
    raw[at] ^= 1 << bit
    for key, purpose, statement, mark in [
        (OTHER, "approval", value, signature),
        (KEY, "ledger-head", value, signature),
        (KEY, "approval", value | {"x": None}, signature),
        (KEY, "approval", value, base64.b64encode(raw).decode()),
        (KEY, "approval", value, ""),
        (KEY, "approval", value, "é"),
        (KEY, "approval", value, f"{signature[:8]}\n{signature[8:]}"),
        (KEY, "approval", value, f" {signature}!"),
    ]:
        with pytest.raises(IntegrityError, match="does not come from the key"):
            check_signature(key.public_key(), purpose, statement, mark)


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    key = signing_key(tmp_path / "keys")
    file = tmp_path / "keys" / "recompress.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert key_id(signing_key(tmp_path / "keys")) == key_id(key)
    assert [path.name for path in file.parent.iterdir()] == ["recompress.pem"]
    assert key_id(read_public_key(public_pem(key))) == key_id(key)


def tell(folder: Path, queue: SimpleQueue[str]) -> None:
    queue.put(key_id(signing_key(folder)))


def test_processes_that_make_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    queue: SimpleQueue[str] = multiprocessing.get_context("fork").SimpleQueue()
    workers = [Child(target=tell, args=(tmp_path, queue)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert len({queue.get() for _ in workers}) == 1


def test_a_key_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    first = signing_key(tmp_path)
    write_key(tmp_path / "recompress.pem", OTHER)
    assert key_id(signing_key(tmp_path)) == key_id(first)
    assert [path.name for path in tmp_path.iterdir()] == ["recompress.pem"]


def test_keys_that_are_refused(tmp_path: Path) -> None:
    signing_key(tmp_path, "open")
    for mode in (0o644, 0o640, 0o620, 0o604):
        (tmp_path / "open.pem").chmod(mode)
        with pytest.raises(IntegrityError, match="can be read by others"):
            signing_key(tmp_path, "open")
    elliptic = generate_private_key(SECP256R1())
    for name, data in [("junk", b"junk"), ("elliptic", elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))]:
        (tmp_path / f"{name}.pem").write_bytes(data)
        (tmp_path / f"{name}.pem").chmod(0o600)
        with pytest.raises(IntegrityError, match="not an Ed25519 key|not a private key"):
            signing_key(tmp_path, name)
    with pytest.raises(InputError, match="not an Ed25519 key"):
        read_public_key(elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())
    with pytest.raises(InputError, match="not a public key in PEM"):
        read_public_key("junk")
    with pytest.raises(InputError, match="cannot be read"):
        read_public_key(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        signing_key(tmp_path / "file" / "keys")
