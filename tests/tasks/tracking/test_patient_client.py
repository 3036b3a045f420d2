"""What MLflow's client raises when its server is away, wants a login, or refuses what is not there: told apart, and only the first is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.patience import Patience
from tasks.tracking.track import Store
from tests.hub import HubHandler, serving

EXPERIMENT = {"experiment": {"experiment_id": "7", "name": "recompress", "artifact_location": "mlflow-artifacts:/7", "lifecycle_stage": "active"}}
ABSENT = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}


class Mlflow(HubHandler):
    """An MLflow server with logins, as it answers who is not its admin; ``codes`` are answered first."""

    codes: list[int]
    asked: list[str]

    def get(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
        Mlflow.asked.append(path)
        if Mlflow.codes:
            self.answer(Mlflow.codes.pop(0), b"You are not authenticated")
        elif "mlflow-artifacts" in path:
            whole = "/artifacts/7/model/weights" in path
            self.answer(200, b"bytes" if whole else {"files": [{"path": "weights", "is_dir": False, "file_size": 5}]})
        elif path == "experiments/get-by-name":
            self.answer(200, EXPERIMENT)
        elif path == "registered-models/get":
            there = "name=theirs" in self.path
            self.answer(*((200, {"registered_model": {"name": "theirs"}}) if there else (404, ABSENT)))
        elif path in ("registered-models/alias", "model-versions/get", "runs/get"):
            self.answer(403, b"Permission denied")
        else:
            self.answer(404, ABSENT)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    Mlflow.codes, Mlflow.asked = [], []
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("recompress.patience.PAUSE_S", 0.05)
    with serving(Mlflow) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//ada:secret@"))
        yield Store(tmp_path)


def test_a_server_that_has_an_error_of_its_own_is_waited_for_once_work_has_begun(store: Store) -> None:
    said: list[str] = []
    store.patience = Patience(60, said.append)
    Mlflow.codes = [503, 500, 502]
    assert store.experiment == "7"
    assert Mlflow.asked.count("experiments/get-by-name") == 4
    assert (len(said), "secret" in said[0]) == (2, False)


def test_a_folder_whose_download_broke_is_fetched_again(store: Store) -> None:
    said: list[str] = []
    store.patience = Patience(60, said.append)
    _ = store.client
    listed = len(Mlflow.asked)
    usual = Mlflow.answer

    def broken(self: Mlflow, code: int, body: object, headers: dict[str, str] | None = None) -> None:
        if body == b"bytes" and len([path for path in Mlflow.asked[listed:] if "weights" in path]) < 3:
            self.close_connection = True  # nothing is said, as where the process was killed
        else:
            usual(self, code, body, headers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mlflow, "answer", broken)
        place = store.fetch("mlflow-artifacts:/7/model")
    assert (place / "weights").read_bytes() == b"bytes"
    assert said[0].endswith("does not answer; it is waited for, 60 s at most")


def test_where_work_begins_it_is_named_at_once(store: Store) -> None:
    Mlflow.codes = [503]
    with pytest.raises(StorageError, match="check MLFLOW_TRACKING_URI and that the server runs"):
        _ = store.experiment
    assert len(Mlflow.asked) == 1


@pytest.mark.parametrize("code", [401, 403])
def test_a_login_that_is_refused_is_not_waited_for_and_the_way_out_is_a_login(store: Store, code: int) -> None:
    store.patience = Patience(60)
    Mlflow.codes = [code]
    with pytest.raises(StorageError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a login that may do this") as caught:
        _ = store.experiment
    assert (len(Mlflow.asked), "secret" in str(caught.value)) == (1, False)


def test_what_is_refused_because_it_is_not_there_is_not_there(store: Store) -> None:
    """A server with logins answers 403 to questions about models and runs that it does not have."""
    assert store.reader.with_alias("nobody-s", "champion") is None
    assert store.reader.version("nobody-s", "1") is None
    assert store.reader.home_of("0" * 32) is None


def test_a_model_that_may_not_be_seen_is_not_taken_for_one_that_is_not_there(store: Store) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="Permission denied"):
        store.reader.with_alias("theirs", "champion")


def test_a_server_that_comes_back_is_asked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import ThreadingHTTPServer

    Mlflow.codes, Mlflow.asked = [], []
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serving(Mlflow) as address:
        port = int(address.rpartition(":")[2])
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store = Store(tmp_path)
    store.patience = Patience(60)
    servers: list[ThreadingHTTPServer] = []

    def come_back() -> None:
        servers.append(ThreadingHTTPServer(("127.0.0.1", port), Mlflow))
        servers[0].serve_forever(poll_interval=0.05)

    back = threading.Timer(1.0, come_back)
    back.start()
    assert store.experiment == "7"
    servers[0].shutdown()
    servers[0].server_close()
    back.join()
