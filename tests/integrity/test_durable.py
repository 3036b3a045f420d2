"""Before anything is named it is on the disk: what is forced there, and in which order. What a disk does with it no test can see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.durable import ends_early, flush_tree
from recompress.integrity.model_files import MANIFEST_FILE, write_manifest
from tests.promotion.stage import model_directory


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was forced to the disk, in order, each under the name that it had then."""
    seen: list[Path] = []
    usual = os.fsync

    def note(number: int) -> None:
        seen.append(Path(f"/proc/self/fd/{number}").readlink())
        usual(number)

    monkeypatch.setattr(os, "fsync", note)
    return seen


def test_files_come_before_the_directories_that_name_them(tmp_path: Path, flushed: list[Path]) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for place in (deep, deep.parent):
        (place / "file").write_text("x")
    flush_tree(tmp_path / "a" / "b", tmp_path)
    order = {path: at for at, path in enumerate(flushed)}
    assert order.keys() == {deep / "file", deep.parent / "file", deep, deep.parent, tmp_path / "a", tmp_path}
    assert all(order[path] < order[path.parent] for path in order.keys() - {tmp_path})
    flushed.clear()
    flush_tree(deep / "file")
    assert flushed == [deep / "file", deep]


def test_a_new_directory_is_whole_on_the_disk_before_it_takes_its_name(tmp_path: Path, flushed: list[Path]) -> None:
    with new_directory(tmp_path / "evidence" / "one") as place:
        (place / "inside").mkdir()
        (place / "inside" / "file").write_text("x")
        inside = [place / "inside" / "file", place / "inside", place]
    assert flushed[:3] == inside
    assert flushed[-2:] == [tmp_path / "evidence", tmp_path]


def test_a_manifest_is_on_the_disk_with_its_name(tmp_path: Path, flushed: list[Path]) -> None:
    model_directory(tmp_path / "artifacts" / "model", 1)
    (tmp_path / "served.py").write_text("# serves\n")
    write_manifest(tmp_path)
    assert flushed == [tmp_path / f".{MANIFEST_FILE}.part", tmp_path]


def test_a_file_ends_early_when_it_is_shorter_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert ends_early(file, 1)
    file.write_bytes(b"xx")
    assert [ends_early(file, size) for size in (1, 2, 3)] == [False, False, True]
