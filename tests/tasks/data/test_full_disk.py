"""A disk that is full or may not be written, behind DVC or behind a tree that is copied: one line that says so, and not that the data is bad."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from recompress.errors import DataRefused, StorageError
from recompress.integrity.atomic_directory import storage_error
from tasks.data import workbench
from tasks.data.workbench import bench


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        (
            "ERROR: unexpected error - [Errno 30] Read-only file system: '/cache/files'",
            StorageError,
            r"DVC cannot write: read-only, .*'/cache/files'; make room",
        ),
        ("ERROR: unexpected error - [Errno 28] No space left on device: 'x'", StorageError, "DVC cannot write: no space left"),
        ("ERROR: failed to run: python, exited with 3\n", DataRefused, "dvc add: failed to run"),
        ("ERROR: unexpected error - [Errno 2] No such file or directory: 'x'", DataRefused, "No such file"),
    ],
)
def test_what_dvc_meets_is_told_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, error: type[Exception], message: str) -> None:
    (tmp_path / "raw").mkdir()
    asked: list[tuple[str, ...]] = []

    def refuses(_folder: Path, _root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        asked.append(arguments)
        return subprocess.CompletedProcess(arguments, 255, "", f"{told}\n\nHaving any troubles? Ask somebody.\n")

    with bench(tmp_path) as work:
        monkeypatch.setattr(workbench, "run_dvc", refuses)
        with pytest.raises(error, match=message):
            work.add(tmp_path / "raw")
    assert all("--quiet" not in arguments for arguments in asked), "DVC hides such errors then"


def test_what_a_copied_tree_gathers_counts_too(tmp_path: Path) -> None:
    assert isinstance(storage_error(shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]), tmp_path), StorageError)
    assert storage_error(shutil.Error([("a", "b", "[Errno 2] No such file or directory: 'a'")]), tmp_path) is None
