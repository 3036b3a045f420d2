"""What is looked at before a flow starts."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from recompress.errors import StorageError
from tasks.orchestrate import prepare, run_flow

Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_as_good_as_full_is_one_line_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 2_500_000, 2_500_000))
    with pytest.raises(StorageError, match=r"^2\.5 MB are free at .*less than 64 MB; make space$"):
        run_flow("recompress", tmp_path, print, recipe="recipe.yaml")
    assert list(tmp_path.iterdir()) == []


def test_prefect_keeps_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "environ", {})
    prepare(tmp_path)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".prefect")
