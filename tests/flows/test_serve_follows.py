"""The server as the command starts it, over a project that an earlier version made: what it imports, what it holds, what it follows, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.models.checkpoint import save
from recompress.predict import Predictor
from tasks.people.serve import champion_now
from tasks.tracking.track import Store
from tests.flows.golden_project import unpack_project
from tests.flows.serving_project import Server, serving
from tests.servers import mlflow_server
from tests.tasks.tracking.test_registry import MODEL, Project
from tests.tiny import tiny_checkpoint

TEXTS = ["leo kula jana", "juma cheza", ""]
KEPT = 32 << 20
"""Bytes that hostile requests may leave behind."""


def version(root: Path, number: str) -> Path:
    """The model directory of a version."""
    found = Store(root).reader.version("toy", number)
    assert found is not None
    return Store(root).fetch(found.source) / MODEL_FOLDER


def answers(root: Path, number: str) -> object:
    return {"predictions": json.loads(json.dumps(Predictor(version(root, number))(TEXTS)))}


@pytest.fixture(scope="module")
def quiet(golden: Path) -> Iterator[Server]:
    """A server over version 2 that nothing happens to."""
    with serving(golden, "toy@champion", probe=True) as server:
        server.until("it answers at")
        yield server


def test_it_answers_what_the_version_says(quiet: Server, golden: Path) -> None:
    status, headers, answer = quiet.ask({"inputs": TEXTS})
    assert (status, headers["x-model-version"]) == (200, "2")
    assert answer == answers(golden, "2")


def test_requests_that_are_too_large_leave_nothing_behind(quiet: Server) -> None:
    quiet.ask({"inputs": TEXTS})
    before = quiet.memory
    for texts, expected in ((["a " * 5_000_000], 413), (["a"] * 100_000, 413), (["leo kula " * 2_000] * 50, 200)):
        assert quiet.ask({"inputs": texts})[0] == expected
    assert quiet.memory - before < KEPT


def test_it_imports_nothing_heavy_and_ends_with_its_signal(golden: Path) -> None:
    with serving(golden, "toy@2", probe=True) as server:
        server.until("it answers at")
        assert server.ask({"inputs": TEXTS})[0] == 200
        code, lines = server.end(signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert "stopped by Ctrl-C" in lines[-2]
    assert json.loads(lines[-1]) == []


@pytest.mark.parametrize("damaged", ["model.onnx", "tokenizer.json"])
def test_a_damaged_version_is_not_begun_with(tmp_path: Path, damaged: str) -> None:
    root = unpack_project(tmp_path / "project")
    change(version(root, "2") / damaged)
    done = CliRunner().invoke(main, ["--root", str(root), "serve", "toy@champion", "--port", "0"])
    assert done.exit_code == 5
    assert damaged in done.stderr
    assert "Traceback" not in done.stderr


def change(file: Path) -> bytes:
    """Another byte in the middle of a file; gives what stood there before."""
    before = file.read_bytes()
    middle = len(before) // 2
    file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    return before


def roll_back(root: Path, to: str) -> None:
    done = CliRunner().invoke(main, ["--root", str(root), "rollback", "toy", "--to", to, "--reason", "a test of what is served"])
    assert done.exit_code == 0, done.stderr


@pytest.mark.slow
def test_another_champion_takes_over_when_its_files_hold_and_not_before(tmp_path: Path) -> None:
    root = unpack_project(tmp_path / "project")
    expected = {number: answers(root, number) for number in ("1", "2")}
    wrong: list[object] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            status, headers, answer = server.ask({"inputs": TEXTS})
            if status != 200 or answer != expected[headers["x-model-version"]]:
                wrong.append((status, headers, answer))

    with serving(root, "toy@champion", "--look-every", "0.2") as server:
        server.until("it answers at")
        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        try:
            roll_back(root, "1")
            server.until("toy version 1 answers from now on")
            os.kill(server.process.pid, signal.SIGSTOP)  # so that it looks when the files are damaged already
            roll_back(root, "2")
            file = version(root, "2") / "model.onnx"
            whole = change(file)
            os.kill(server.process.pid, signal.SIGCONT)
            line = server.until("toy version 1 goes on, because what the alias names is refused")
            assert "model.onnx" in line
            health = server.ask(None, "/health")[2]
            assert (health["status"], health["version"]) == ("ok", "1")
            assert str(root) not in health["refused"]
            assert server.metric("recompress_alias_refused") == 1
            file.write_bytes(whole)
            server.until("toy version 2 answers from now on")
            assert server.ask({"inputs": TEXTS})[1]["x-model-version"] == "2"
            assert server.metric("recompress_alias_refused") == 0
        finally:
            stop.set()
            for thread in clients:
                thread.join(60)
        code, lines = server.end(signal.SIGTERM)
    assert wrong == []
    assert code == 128 + signal.SIGTERM
    assert not any("Traceback" in line for line in lines)
    assert not any(text in line for line in lines for text in TEXTS if text)


def test_beside_a_server_it_is_the_ledger_that_is_looked_at(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there, and MLflow's client is not asked."""
    assert champion_now(golden, "toy") == "2"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert champion_now(golden, "toy") == "2"
    assert champion_now(golden, "other") is None


@pytest.mark.long
def test_a_champion_of_a_server_is_fetched_and_checked_by_a_process_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_server(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        root = tmp_path / "project"
        root.mkdir()
        (root / "dvc.yaml").write_text("stages: {}\n")
        save(tiny_checkpoint("text-classification"), root / "candidate")
        Project(root).promote(root / "candidate")
        with serving(root, f"{MODEL}@champion", "--look-every", "0.2", probe=True, MLFLOW_TRACKING_URI=address) as server:
            server.until("it answers at")
            assert server.ask({"inputs": TEXTS})[2] == {"predictions": json.loads(json.dumps(Predictor(root / "candidate")(TEXTS)))}
            looked = server.metric("recompress_alias_looked_at_timestamp_seconds")
            while server.metric("recompress_alias_looked_at_timestamp_seconds") == looked:
                assert server.metric("recompress_alias_refused") == 0
            assert "mlflow" not in json.loads(server.end(signal.SIGTERM)[1][-1])
