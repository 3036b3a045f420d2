"""What is looked at before a flow starts."""

from __future__ import annotations

import importlib
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from recompress.errors import StorageError
from recompress.integrity.file_lock import locked
from tasks.ledger.access import open_ledger
from tasks.running import orchestrate
from tasks.running.lock import is_busy, recipe_held
from tasks.running.orchestrate import prepare, run_flow

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


def test_a_recipe_that_is_being_run_is_refused_before_any_server_starts_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    started: list[str] = []
    monkeypatch.setattr(orchestrate, "named_server", lambda: None)
    monkeypatch.setattr(orchestrate, "_start_server", lambda *_: started.append("server"))
    monkeypatch.setattr(orchestrate, "read_plan", lambda recipe, _: SimpleNamespace(recipe=SimpleNamespace(name=recipe)))
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(recompress=lambda **named: named["recipe"]))
    with recipe_held(open_ledger(tmp_path), "toy"):
        with pytest.raises(StorageError, match="^recipe 'toy' is being run already by .*; wait for it to end, or run another recipe beside it$") as refused:
            run_flow("recompress", tmp_path, print, recipe="toy")
        assert (started, is_busy(str(refused.value))) == ([], True)
        assert (run_flow("recompress", tmp_path, print, recipe="other"), started) == ("other", ["server"])
    assert run_flow("recompress", tmp_path, print, recipe="toy") == "toy"


def test_servers_of_one_project_start_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start on one new ``.prefect`` at once tell each other's errors in pages."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setattr(orchestrate, "end_server_with_this_process", lambda: None)

    def start() -> None:
        with pytest.raises(StorageError, match="another"), locked(tmp_path / ".recompress" / "prefect.lock", busy="another"):
            pass
        started.append("server")

    started: list[str] = []
    monkeypatch.setattr(orchestrate, "start_temporary_server", start)
    orchestrate._start_server(tmp_path, print)
    assert started == ["server"]
    with locked(tmp_path / ".recompress" / "prefect.lock", busy="another"):
        pass


def test_a_server_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server.")

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setattr(orchestrate, "named_server", lambda: None)
    monkeypatch.setattr(orchestrate, "_start_server", start)
    with pytest.raises(StorageError, match="^Prefect's temporary server did not start"):
        run_flow("toy", tmp_path, print)
