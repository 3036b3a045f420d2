"""Bundles in one file: packed, cut off, and made to do harm."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.evidence import archive, verify_bundle
from tests.evidence.bundles import PUBLIC, Bundled


def test_packed_and_unpacked_it_is_the_same(bundled: Bundled, tmp_path: Path) -> None:
    packed = archive.pack(bundled.bundle.parent / "bundle", tmp_path / "bundle.zip")
    assert verify_bundle(packed, PUBLIC).version == "2"
    assert packed.read_bytes() == archive.pack(bundled.bundle, tmp_path / "again.zip").read_bytes()
    wrapped = tmp_path / "wrapped"
    shutil.copytree(bundled.bundle, wrapped / "ner-v2")
    assert verify_bundle(archive.pack(wrapped, tmp_path / "wrapped.zip"), PUBLIC).version == "2"
    data = packed.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.zip").write_bytes(data[:cut])
        with pytest.raises(IntegrityError):
            verify_bundle(tmp_path / "cut.zip", PUBLIC)
    with pytest.raises(InputError, match="there is no bundle"):
        verify_bundle(tmp_path / "none", PUBLIC)


def test_neither_the_times_nor_the_sizes_of_files_show_in_an_archive(tmp_path: Path) -> None:
    for name, size in (("b", 1), ("a/z", 3), ("c", 9), ("a-", 5)):
        (tmp_path / "inner" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "inner" / name).write_bytes(b"x" * size)
    before = archive.pack(tmp_path / "inner", tmp_path / "before.zip").read_bytes()
    for file in (tmp_path / "inner").rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    assert archive.pack(tmp_path / "inner", tmp_path / "after.zip").read_bytes() == before
    with zipfile.ZipFile(tmp_path / "after.zip") as packed:
        assert packed.namelist() == ["a/z", "a-", "b", "c"]


def test_what_comes_out_is_counted_whatever_reads_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Python's own reader stops where the index says; nothing else here relies on that."""
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as packed:
        packed.writestr("small", b"x")
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, member: io.BytesIO(bytes(archive.SMALL + 1)))
    (tmp_path / "inner").mkdir()
    with pytest.raises(IntegrityError, match="'small' grows beyond 1,048,576 bytes"):
        archive.unpack(tmp_path / "small.zip", tmp_path / "inner")


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt", "a\\..\\outside.txt", "C:/outside.txt", "./a", "a//b"])
def test_an_archive_that_names_a_place_outside_is_not_unpacked(tmp_path: Path, name: str) -> None:
    place = tmp_path / "inner"
    place.mkdir()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("first.txt", "fine")
        packed.writestr(zipfile.ZipInfo(name), "bad")
    with pytest.raises(IntegrityError, match="lies outside its folder or is no plain path; nothing was unpacked"):
        archive.unpack(tmp_path / "bad.zip", place)
    assert not list(place.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip", "inner"]


@pytest.mark.parametrize("name", ["a" * 256, "é" * 128, f"fine/{'b' * 300}/c.txt", "/".join(["folder"] * 200), "x" * 60_000])
def test_a_name_that_no_file_system_takes_is_not_unpacked(bundled: Bundled, tmp_path: Path, name: str) -> None:
    place = tmp_path / "inner"
    place.mkdir()
    shutil.copyfile(archive.pack(bundled.bundle, tmp_path / "bundle.zip"), tmp_path / "long.zip")
    with zipfile.ZipFile(tmp_path / "long.zip", "a") as packed:
        packed.writestr(zipfile.ZipInfo(name), "bad")
    with pytest.raises(IntegrityError, match=r"bytes; the limits are 255 for a name and 1,024 for a path; nothing was unpacked") as refusal:
        archive.unpack(tmp_path / "long.zip", place)
    assert len(str(refusal.value)) < 600
    assert not list(place.iterdir())
    with pytest.raises(IntegrityError, match="the limits are"):
        verify_bundle(tmp_path / "long.zip", PUBLIC)


def test_archive_bombs_links_and_doubles_are_not_unpacked(tmp_path: Path) -> None:
    place = tmp_path / "inner"
    place.mkdir()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", b"\0" * (64 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(IntegrityError, match=r"'zeros' would grow from .* to 67,108,864 bytes; nothing was unpacked"):
        archive.unpack(tmp_path / "bomb.zip", place)

    lying = (tmp_path / "bomb.zip").read_bytes().replace((64 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (tmp_path / "lying.zip").write_bytes(lying)  # the index says 1,000 bytes
    with pytest.raises(IntegrityError):
        archive.unpack(tmp_path / "lying.zip", place)
    assert sum(file.stat().st_size for file in place.iterdir()) <= 1 << 20

    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(IntegrityError, match="is a link"):
        archive.unpack(tmp_path / "link.zip", place)

    with zipfile.ZipFile(tmp_path / "double.zip", "w") as packed:
        packed.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            packed.writestr("a", "2")
    with pytest.raises(IntegrityError, match="holds 'a' twice"):
        archive.unpack(tmp_path / "double.zip", place)

    with zipfile.ZipFile(tmp_path / "many.zip", "w") as packed:
        for i in range(archive.MAX_FILES + 1):
            packed.writestr(str(i), "")
    with pytest.raises(IntegrityError, match="holds 10,001 files"):
        archive.unpack(tmp_path / "many.zip", place)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as packed:
        packed.writestr("a", "1")
        packed.writestr("a/b", "2")
    with pytest.raises(IntegrityError):
        archive.unpack(tmp_path / "both.zip", tmp_path / "inner2")
