"""Which database an MLflow server has, asked of real servers, which write nothing for the question."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError
from tasks.schedule.stores import check_stores
from tasks.tracking.database import keeps_runs_in_sqlite
from tasks.tracking.track import Store
from tests.ledger.stores import new_database
from tests.servers import mlflow_server


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_server_over_sqlite_is_told_from_one_over_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    in_sqlite = database == "sqlite"
    monkeypatch.setenv("RECOMPRESS_LEDGER", "postgresql://somebody@127.0.0.1/ledger")
    with mlflow_server(tmp_path, "" if in_sqlite else new_database()) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        store = Store(tmp_path)
        assert keeps_runs_in_sqlite(store) is in_sqlite
        if in_sqlite:
            with pytest.raises(InputError, match=f"the MLflow server that MLFLOW_TRACKING_URI names, {address}, keeps its runs in SQLite"):
                check_stores(tmp_path)
        else:
            check_stores(tmp_path)
        from mlflow import MlflowClient

        assert [experiment.name for experiment in MlflowClient(address).search_experiments()] == ["Default"]


def test_a_store_of_the_project_is_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert keeps_runs_in_sqlite(Store(tmp_path)) is True
    assert list(tmp_path.iterdir()) == []
