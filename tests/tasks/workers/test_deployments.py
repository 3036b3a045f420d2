"""Steps as runs of a deployment: the key asks once, a run that ended without a result is followed by another, and a machine that is gone is noticed by its lease."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Completed, Crashed, Failed, Pending, Running

from recompress.errors import InputError
from recompress.ledger import Ledger
from tasks.running.leases import me
from tasks.workers import deployments
from tasks.workers.deployments import Deployments, do_deployed
from tests.tasks.workers.test_at_work import STANDING, job


class Server:
    """Prefect as far as it is asked: runs by idempotency key, their states set by the test."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.set: list[tuple[str, str]] = []

    def run_deployment(self, name: str, *, parameters: dict[str, Any], idempotency_key: str, timeout: int, **_: Any) -> Any:
        assert (name, timeout) == ("recompress-step/few", 0)
        return self.runs.setdefault(idempotency_key, SimpleNamespace(id=idempotency_key, state=Pending(), parameters=parameters))

    def read_flow_run(self, key: str) -> Any:
        return self.runs[key]

    def set_flow_run_state(self, key: str, state: Any, force: bool) -> None:
        assert force
        self.set.append((key, state.type.value))
        self.runs[key].state = state


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(deployments, "run_deployment", server.run_deployment)
    monkeypatch.setattr(deployments, "LOOK_S", 0.01)
    return server


def pool(server: Server, ledger: Ledger, lines: list[str] | None = None) -> Deployments:
    made = Deployments.__new__(Deployments)
    made._ledger, made._pool, made._count, made._say = ledger, "few", 2, (lines if lines is not None else []).append
    made._handed, made._tried, made._client = [], deployments.Counter(), server  # type: ignore[assignment]
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (Completed(message="done"), {"did": True}),
        (Completed(message="found"), {"did": False}),
        (
            Failed(message="InputError: worker host takes no work: its commit is a"),
            {"kind": "InputError", "error": "worker host takes no work: its commit is a"},
        ),
        (Crashed(message="the process was killed"), {"gone": "gone (crashed: the process was killed)"}),
    ],
    ids=["done", "found", "refused", "crashed"],
)
def test_how_a_job_ended_is_told_by_the_state_of_its_run(server: Server, ledger: Ledger, state: Any, ended: dict[str, Any]) -> None:
    workers = pool(server, ledger)
    workers.give(job("k"))
    assert workers.free == 1
    server.runs["k"].state = state
    got = workers.wait().as_json()
    assert {name: got[name] for name in ended} == ended
    assert (got["job"]["key"], workers.free) == ("k", 2)


def test_two_runs_ask_for_a_step_once_and_one_that_ended_without_a_result_is_asked_for_again(server: Server, ledger: Ledger) -> None:
    first, second = pool(server, ledger), pool(server, ledger)
    first.give(job("k"))
    second.give(job("k"))
    assert list(server.runs) == ["k"]
    server.runs["k"].state = Crashed()
    assert first.wait().gone
    first.give(job("k"))
    assert list(server.runs) == ["k", "k/2"]


def test_a_job_that_lay_there_from_another_commit_is_taken_away(server: Server, ledger: Ledger) -> None:
    pool(server, ledger).give(job("k", standing=STANDING | {"commit": "before"}))
    pool(server, ledger).give(job("k"))
    assert server.set == [("k", "CANCELLED")]
    assert list(server.runs) == ["k", "k/2"]


def test_a_worker_is_gone_when_its_lease_on_the_step_is(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "LEASE_S", 0.3)
    workers = pool(server, ledger)
    workers.give(job("k"))
    server.runs["k"].state = Running()
    lease = ledger.leases.take("step k", "ada elsewhere:12/there", 60)
    assert lease is not None
    [handed] = workers._handed
    assert not workers._is_lost(handed, server.runs["k"].state)
    ledger.leases.give_back(lease)
    assert not workers._is_lost(handed, server.runs["k"].state), "the next look may find that it has ended"
    assert workers.wait().gone
    assert server.set == [("k", "CRASHED")]


def test_a_killed_process_of_this_machine_is_noticed_at_the_next_look(server: Server, ledger: Ledger) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    workers = pool(server, ledger)
    workers.give(job("k"))
    server.runs["k"].state = Running()
    who, _, place = me().rpartition(":")
    assert ledger.leases.take("step k", f"{who}:{ended.pid}/{place.partition('/')[2]}", 60) is not None
    assert workers.wait().gone


def test_a_step_that_nobody_takes_says_how_to_start_a_worker(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "UNTAKEN_S", 0.0)
    lines: list[str] = []
    workers = pool(server, ledger, lines)
    workers.give(job("k"))
    [handed] = workers._handed
    for _ in range(2):
        assert not workers._is_lost(handed, server.runs["k"].state)
    assert lines == ["small/2 cut · no worker takes it; on a machine with the project: RECOMPRESS_ROOT=FOLDER prefect worker start --pool few"]


def test_a_refusal_on_a_worker_s_machine_is_the_state_s_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, root: Path, *_: object) -> None:
            assert root == tmp_path

        def do(self, given: Any) -> bool:
            if given.key == "k":
                raise InputError("worker host takes no work")
            return given.key == "done"

    monkeypatch.setattr(deployments, "Workshop", Refusing)
    monkeypatch.setenv("RECOMPRESS_ROOT", str(tmp_path))
    states = [do_deployed(job(key).as_json(), "") for key in ("k", "done", "found")]
    assert [(state.type.value, state.message) for state in states] == [
        ("FAILED", "InputError: worker host takes no work"),
        ("COMPLETED", "done"),
        ("COMPLETED", "found"),
    ]
