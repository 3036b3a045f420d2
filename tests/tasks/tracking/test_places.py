"""Stores in folders with odd names, stores that were moved, stores that may only be read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.model_files import check_version
from recompress.models.checkpoint import save
from recompress.promotion import MANIFEST_TAG
from tasks.tracking.places import path_of, sqlite_url
from tasks.tracking.registry import open_registry
from tasks.tracking.track import Store, moved
from tests.tasks.tracking.stores import new_store
from tests.tasks.tracking.test_registry import MODEL, Project
from tests.tasks.tracking.test_track import Work, fresh
from tests.tiny import tiny_checkpoint

ODD = "My Projects/Büro 100% a%20b [x] #1 & 'so'"
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


@pytest.mark.parametrize("name", ["a b", "Ünï", "a%20b", "a#b", "[x]", "a?b", "a&b;c", "a'b"])
def test_a_path_comes_back_from_its_url(name: str) -> None:
    path = Path("/home") / name / "x.txt"
    assert path_of(path.as_uri()) == path_of(str(path)) == path
    assert path_of("mlflow-artifacts:/1/x") is path_of("s3://bucket/a%20b") is None


def test_a_question_mark_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="question mark in its name.*rename the folder"):
        Store(tmp_path / "a?b")
    assert not list(tmp_path.iterdir())
    assert sqlite_url(Path("/a%b/#.db")) == "sqlite:////a%b/#.db"


@pytest.mark.parametrize("url", ["postgresql://u:S3cret@h/db", "mysql+pymysql://u:S3cret@h/db", "mssql+pyodbc://h/db"])
def test_a_database_is_no_place_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(InputError, match="is a database .*give the URL of an MLflow server") as refused:
        Store(tmp_path)
    assert "S3cret" not in str(refused.value)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """In a folder with an odd name: a step that was kept, and a champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOMPRESS_ACTOR", "tester")
        root = tmp_path_factory.mktemp("odd") / ODD
        root.mkdir(parents=True)
        project = Project(new_store(root))
        fresh(root).step("a", key="a" * 64, run="baseline", do=Work())
        save(tiny_checkpoint("text-classification"), root / "candidate")
        project.promote(root / "candidate")
    return project


def works(root: Path, rows: dict[str, str]) -> None:
    """Everything is found again where the project is now."""
    doubts: list[str] = []
    result = fresh(root).memory.recall("a" * 64, "a", doubts.append)
    assert (result or {}).get("answer") == 42, doubts
    assert all(path_of(artifact["uri"]).is_relative_to(root) for artifact in (result or {})["artifacts"].values())  # type: ignore[union-attr]
    again = Project(root)
    check_version(again.registry.fetch(MODEL, "1"), (again.registry.tags(MODEL, "1") or {})[MANIFEST_TAG])
    assert again.registry.fetch(MODEL, "1").is_relative_to(root)
    assert again.registry.rows(MODEL, "1") == rows, "what the ledger compares is the same"


def test_a_project_in_a_folder_with_an_odd_name_works_and_goes_on_where_it_is_moved(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = project.registry.rows(MODEL, "1")
    assert rows["source"].startswith("mlflow/store/artifacts/")
    works(project.root, rows)
    for name in ("plain", "another odd one %41 ö"):
        place = tmp_path / name
        project.root.rename(place)
        try:
            works(place, rows)
            (place / "later").write_text("x")
            uri = Store(place).log(Store(place).open_run("later", {}), place / "later", "p")["uri"]
            assert path_of(uri).is_relative_to(place)  # type: ignore[union-attr]
            assert not project.root.exists(), "nothing is written at the old place"
            monkeypatch.chdir(tmp_path)
            assert Store(Path(name)).uri == Store(place).uri, "a relative root is the same place"
        finally:
            place.rename(project.root)
    works(project.root, rows)


def test_what_somebody_put_elsewhere_is_not_brought_back_by_a_move(project: Project, tmp_path: Path) -> None:
    import sqlite3

    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy)
    with sqlite3.connect(copy / "mlflow" / "store" / "mlflow.db") as connection:
        connection.execute("UPDATE model_versions SET storage_location = ?", ((tmp_path / "elsewhere").as_uri(),))
    connection.close()
    with pytest.raises(IntegrityError, match="somebody changed its storage place"):
        Project(copy).registry.fetch(MODEL, "1")


def test_whoever_may_only_read_gets_a_copy_of_the_database(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = project.root / "mlflow" / "store"
    (store / "made.lock").unlink(missing_ok=True)
    before, usual = (store / "mlflow.db").read_bytes(), os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: False if Path(path) == store and mode == os.W_OK else usual(path, mode, **more))
    reader = Store(project.root)
    assert [run.name for run in reader.runs() if run.name == "baseline"]
    assert "baseline" in [run.info.run_name for run in reader.client.search_runs([reader.experiment])]
    assert Project(project.root).registry.fetch(MODEL, "1").is_dir()
    with pytest.raises(StorageError, match="can only be read here"):
        reader.open_run("x", {})
    assert not (store / "made.lock").exists()
    assert (store / "mlflow.db").read_bytes() == before


def test_whoever_only_asks_writes_nothing_where_the_project_was_moved(project: Project, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy)
    store = copy / "mlflow" / "store"
    (store / "made.lock").unlink(missing_ok=True)
    before = (store / "mlflow.db").read_bytes()
    reader = Store(copy, reads_only=True)
    assert [run.name for run in reader.runs() if run.name == "baseline"]
    assert reader.runs_with_step("a" * 64)
    assert open_registry(reader).fetch(MODEL, "1").is_relative_to(copy)
    assert (store / "mlflow.db").read_bytes() == before
    assert not (store / "made.lock").exists()
    works(copy, project.registry.rows(MODEL, "1"))
    assert (store / "mlflow.db").read_bytes() != before, "a run brings the places up to date"


@pytest.mark.parametrize(
    ("uri", "home", "found"),
    [
        ("file:///old/1/steps/a-1/model", "file:///new/1", "file:///new/1/steps/a-1/model"),
        ("http://old/1/steps/a-1/x/steps/y", "mlflow-artifacts:/1", "mlflow-artifacts:/1/steps/a-1/x/steps/y"),
        ("file:///elsewhere/model", "file:///new/1", "file:///elsewhere/model"),
    ],
)
def test_a_step_s_files_are_looked_for_in_its_run(uri: str, home: str, found: str) -> None:
    assert moved(uri, home, "steps/a-1") == found


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    from tasks.data.workbench import bench

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"cannot lock files \(.*made\.lock: No locks available\); put the project on a local disk"):
        _ = Store(tmp_path).client
    with pytest.raises(StorageError, match=r"cannot lock files \(.*data/lock: No locks available\)"), bench(tmp_path):
        pass
