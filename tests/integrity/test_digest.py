"""Digests: one name for one content, and the first wrong file is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recompress.errors import IntegrityError
from recompress.integrity.digest import FileEntry, canonical_json, check_directory, check_manifest, manifest, sha256_directory, sha256_json, sha256_manifest


def make(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def test_canonical_json_sorts_keys_by_utf16_and_writes_numbers_the_one_way() -> None:
    # the example of RFC 8785, section 3.2.2, in our own words: order of keys and shortest form of numbers
    assert canonical_json({"b": 1e21, "a": [1.0, 0.002, 1e-7], "€": "€", "1": True}) == '{"1":true,"a":[1,0.002,1e-7],"b":1e+21,"€":"€"}'.encode()


def test_json_that_cannot_be_said_is_refused() -> None:
    with pytest.raises(Exception, match=r"(?i)nan|float|finite"):
        canonical_json({"loss": float("nan")})


def test_a_directory_digest_is_the_digest_of_its_sorted_manifest(tmp_path: Path) -> None:
    make(tmp_path, {"b.txt": b"two", "a/x.txt": b"one"})
    expected = [["a/x.txt", 3, hashlib.sha256(b"one").hexdigest()], ["b.txt", 3, hashlib.sha256(b"two").hexdigest()]]
    assert sha256_directory(tmp_path) == sha256_json(expected)

    assert sha256_manifest(reversed(manifest(tmp_path))) == sha256_json(expected), "whoever lists the files in another order means the same directory"


def test_a_directory_is_held_against_its_digest(tmp_path: Path) -> None:
    digest = sha256_directory(make(tmp_path, {"a": b"1"}))
    check_directory(tmp_path, digest)
    make(tmp_path, {"a": b"2"})
    with pytest.raises(IntegrityError, match=f"has digest {sha256_directory(tmp_path)}, expected {digest}"):
        check_directory(tmp_path, digest)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(min_size=1, max_size=64), place=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_every_single_byte_change_is_found_and_the_file_is_named(tmp_path: Path, data: bytes, place: int, change: int) -> None:
    make(tmp_path, {"weights": data, "config": b"{}"})
    expected = manifest(tmp_path)
    changed = bytearray(data)
    changed[place % len(data)] ^= change
    (tmp_path / "weights").write_bytes(bytes(changed))
    with pytest.raises(IntegrityError, match="^weights "):
        check_manifest(tmp_path, expected)


def test_a_missing_and_an_added_file_are_named(tmp_path: Path) -> None:
    expected = manifest(make(tmp_path, {"a": b"1", "b": b"2"}))
    (tmp_path / "b").unlink()
    with pytest.raises(IntegrityError, match="b is missing"):
        check_manifest(tmp_path, expected)
    make(tmp_path, {"b": b"2", "c": b"3"})
    with pytest.raises(IntegrityError, match="c stands in .* but not in its manifest"):
        check_manifest(tmp_path, expected)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\..\\x"])
def test_a_manifest_that_leaves_its_directory_is_refused(tmp_path: Path, path: str) -> None:
    make(tmp_path, {"a": b"1"})
    with pytest.raises(IntegrityError, match="outside its directory"):
        check_manifest(tmp_path, [FileEntry(path, 1, "0" * 64)])


def test_links_and_empty_directories_have_no_digest(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="missing or empty"):
        sha256_directory(tmp_path)
    make(tmp_path, {"a": b"1"})
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(IntegrityError, match="is a link"):
        sha256_directory(tmp_path)


def test_links_of_a_hub_cache_lead_to_its_own_blobs_and_nowhere_else(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text("same")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("same")
    assert sha256_directory(snapshot) == sha256_directory(tmp_path / "plain")
    (tmp_path / "secret").write_text("mine")
    for target in (tmp_path / "secret", blobs, blobs / "gone"):
        (snapshot / "more.json").symlink_to(target)
        with pytest.raises(IntegrityError, match="is a link"):
            sha256_directory(snapshot)
        (snapshot / "more.json").unlink()
