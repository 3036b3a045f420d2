"""What MLflow holds is the same by its client and by its rows, whatever was deleted, renamed or laid into another experiment."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking.reading import TABLES, ClientReader, RowReader, knows_tables
from tasks.tracking.track import EXPERIMENT, Store
from tests.tasks.tracking.stores import new_store

MODELS = ("ner", "topics", "nothing", "Ner", "ner%", "a'b")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Versions with and without tags, one deleted, one moved; aliases, one of which was taken away; runs of two experiments, one deleted."""
    store = Store(new_store(tmp_path_factory.mktemp("reading")))
    client = store.client
    runs = [store.open_run(f"run {number}", {"recompress.plan": "p", f"step.{number % 2}": f"place {number}#sha"}) for number in range(4)]
    client.set_tag(runs[0], "step.both", "x#1")
    client.set_tag(runs[2], "step.both", "x#2")
    client.set_tag(runs[2], "steps.both", "no step")
    client.delete_run(runs[3])
    other = client.create_experiment("another", artifact_location=(store.folder / "artifacts").as_uri())
    client.set_tag(client.create_run(other).info.run_id, "step.both", "x#3")
    for model in ("ner", "topics"):
        client.create_registered_model(model)
        for number in range(11):  # two digits: numbers are no words
            client.create_model_version(
                model, f"{store.folder.as_uri()}/artifacts/{model}/{number}", runs[0] if number else None, tags={"recompress.n": str(number)}
            )
    client.delete_model_version("ner", "3")
    client.set_registered_model_alias("ner", "champion", "10")
    client.set_registered_model_alias("topics", "champion", "2")
    client.set_registered_model_alias("topics", "old", "4")
    client.delete_registered_model_alias("topics", "old")
    client.set_model_version_tag("ner", "4", "recompress.n", "")
    with closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET storage_location = '/elsewhere' WHERE name = 'ner' AND version = 5")
    return store


@pytest.fixture(scope="module")
def readers(store: Store) -> tuple[ClientReader, RowReader]:
    return ClientReader(store.client), RowReader(store.folder / "mlflow.db")


def test_versions_are_the_same(readers: tuple[ClientReader, RowReader]) -> None:
    by_client, by_rows = readers
    assert by_client.versions() == by_rows.versions()
    assert len(by_rows.versions()) == 21
    for model in MODELS[:3]:
        assert by_client.versions(model) == by_rows.versions(model), model
    for version in ("1", "3", "4", "5", "10", "11", "12", "0"):
        assert by_client.version("ner", version) == by_rows.version("ner", version), version
    assert by_rows.version("ner", "3") is None
    moved = by_rows.version("ner", "5")
    assert moved is not None
    assert moved.served_from == "/elsewhere" != moved.source


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("alias", ["champion", "old", "latest", "Champion", "chal%"])
def test_aliases_are_the_same(readers: tuple[ClientReader, RowReader], model: str, alias: str) -> None:
    by_client, by_rows = readers
    assert by_client.with_alias(model, alias) == by_rows.with_alias(model, alias)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM registered_models WHERE name = 'ner'",
        "DELETE FROM registered_model_aliases WHERE name = 'ner'",
        "DELETE FROM model_versions WHERE name = 'ner' AND version = 10",
        "UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE name = 'ner' AND version = 10",
        "UPDATE registered_model_aliases SET version = 99 WHERE name = 'ner'",
        "DELETE FROM model_version_tags WHERE name = 'ner'",
        "UPDATE runs SET lifecycle_stage = 'deleted'",
        "DELETE FROM experiments WHERE name = 'another'",
    ],
)
def test_damage_is_seen_the_same(store: Store, tmp_path: Path, damage: str) -> None:
    database = Path(shutil.copyfile(store.folder / "mlflow.db", tmp_path / "mlflow.db"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(damage)
    by_client, by_rows = ClientReader(MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")), RowReader(database)
    for alias in ("champion", "latest"):
        assert by_client.with_alias("ner", alias) == by_rows.with_alias("ner", alias)
    assert by_client.versions() == by_rows.versions()
    for experiment in (EXPERIMENT, "another"):
        assert {run.id for run in by_client.runs(experiment)} == {run.id for run in by_rows.runs(experiment)}


def test_runs_are_the_same(store: Store, readers: tuple[ClientReader, RowReader]) -> None:
    by_client, by_rows = readers
    for experiment in (EXPERIMENT, "another", "none"):
        for step in ("", "0", "1", "both", "bo%", "b_th"):
            one, other = ({run.id: run for run in reader.runs(experiment, step)} for reader in readers)
            assert one == other, (experiment, step)
    assert len(by_rows.runs(EXPERIMENT)) == 3
    assert len(by_rows.runs(EXPERIMENT, "both")) == 2
    for run in [*(run.id for run in store.runs()), "0" * 32]:
        assert by_client.home_of(run) == by_rows.home_of(run)
    deleted = store.client.search_runs([store.experiment], run_view_type=2)[0].info.run_id
    assert by_client.home_of(deleted) == by_rows.home_of(deleted) is not None


def test_rows_are_read_only_while_their_tables_are_known(store: Store, tmp_path: Path) -> None:
    """The revision is the one that the MLflow of the project makes, so that a new MLflow is noticed here first."""
    assert knows_tables(store.folder / "mlflow.db")
    assert isinstance(Store(store.root).reader, RowReader)
    root = new_store(tmp_path / "newer")
    database = Store(root).folder / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(TABLES,)]
        connection.execute("UPDATE alembic_version SET version_num = 'something newer'")
    assert not knows_tables(database)
    assert not knows_tables(tmp_path / "no such file")
    (tmp_path / "text").write_text("no database")
    assert not knows_tables(tmp_path / "text")


def test_what_was_written_a_moment_ago_is_read(store: Store) -> None:
    reader = Store(store.root).reader
    assert isinstance(reader, RowReader)
    run = store.open_run("another", {"step.late": "x#4"})
    assert [one.id for one in reader.runs(EXPERIMENT, "late")] == [run]
    store.client.set_registered_model_alias("topics", "late", "7")
    found = reader.with_alias("topics", "late")
    assert found is not None
    assert found.version == "7"
