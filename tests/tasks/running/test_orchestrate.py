"""What is looked at before a flow starts."""

from __future__ import annotations

import importlib
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.errors import StorageError
from tasks.running import orchestrate
from tasks.running.lock import project_held, project_taken
from tasks.running.orchestrate import prepare, run_flow
from tasks.tracking.track import locked

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


def test_a_project_in_which_a_run_is_at_work_is_refused_before_any_server_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start on one new ``.prefect`` at once tell each other's errors in pages."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    started: list[str] = []
    monkeypatch.setattr(orchestrate, "named_server", lambda: None)
    monkeypatch.setattr(orchestrate, "end_server_with_this_process", lambda: started.append("watcher"))
    monkeypatch.setattr(importlib, "import_module", lambda name: started.append(name))
    with locked(tmp_path / ".recompress" / "lock"), pytest.raises(StorageError, match="^another recompression is running in this project; wait for it to end$"):
        run_flow("recompress", tmp_path, print, recipe="recipe.yaml")
    assert started == []


def test_the_project_is_held_while_the_flow_runs_and_handed_over_to_one_recompression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setattr(orchestrate, "named_server", lambda: None)
    monkeypatch.setattr(orchestrate, "end_server_with_this_process", lambda: None)

    def flow(root: str) -> str:
        with project_held(tmp_path):
            for lock in (project_held, project_taken):
                with pytest.raises(StorageError, match="another recompression"), lock(tmp_path):
                    pass
        with pytest.raises(StorageError, match="another recompression"), project_held(tmp_path):
            pass
        return "done"

    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(toy=flow))
    assert run_flow("toy", tmp_path, print) == "done"
    with project_held(tmp_path):
        pass
