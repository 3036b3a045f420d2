"""Steps as runs of a deployment: the key asks once, a run that ended without a result is followed by another, and a machine that is gone is noticed by its lease."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Pending, Running, Scheduled

from recompress.errors import InputError
from recompress.ledger import Ledger
from recompress.patience import Patience
from tasks.running.leases import me
from tasks.tracking.memory import ForgedStep
from tasks.workers import deployed, deployments
from tasks.workers.deployed import do_deployed
from tasks.workers.deployments import Deployments
from tasks.workers.job import StandsElsewhere
from tests.tasks.workers.test_at_work import STANDING, job


class Server:
    """Prefect as far as it is asked: runs by idempotency key, their states set by the test."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.set: list[tuple[str, str]] = []

    def run_deployment(self, name: str, *, parameters: dict[str, Any], idempotency_key: str, timeout: int, **_: Any) -> Any:
        assert (name, timeout) == ("recompress-step/few", 0)
        return self.runs.setdefault(idempotency_key, SimpleNamespace(id=idempotency_key, state=Scheduled(), parameters=parameters))

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
    made._patience = Patience()
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
            Failed(message="StandsElsewhere: worker host takes no work: its commit is a"),
            {"kind": "", "error": "", "elsewhere": "worker host takes no work: its commit is a"},
        ),
        (Failed(message="InputError: sparsity is a share"), {"kind": "InputError", "error": "sparsity is a share", "elsewhere": ""}),
        (Failed(message="StorageError: no space left"), {"kind": "", "error": "", "gone": "stopped by what may pass (no space left)"}),
        (Crashed(message="the process was killed"), {"gone": "gone (crashed: the process was killed)"}),
    ],
    ids=["done", "found", "elsewhere", "refused", "stopped", "crashed"],
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


def begun_by_one_that_died(server: Server, ledger: Ledger, *leases: str) -> Deployments:
    """A job that a process of this machine took, with these leases; the process is no more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    workers = pool(server, ledger)
    workers.give(job("k"))
    server.runs["k"].state = Running()
    who, _, place = me().rpartition(":")
    for name in leases:
        assert ledger.leases.take(name, f"{who}:{ended.pid}/{place.partition('/')[2]}", 60) is not None
    return workers


def test_a_killed_process_of_this_machine_is_noticed_at_the_next_look(server: Server, ledger: Ledger) -> None:
    assert begun_by_one_that_died(server, ledger, "step k").wait().gone


def test_the_lease_of_a_killed_process_is_not_taken_for_that_of_the_next_one(server: Server, ledger: Ledger) -> None:
    """Whoever gets the job next is seen by a lease of its own, which it does not have at once."""
    workers = begun_by_one_that_died(server, ledger, "job k", "step k")
    assert workers.wait().gone
    workers.give(job("k"))
    server.runs["k/2"].state = Running()
    [handed] = workers._handed
    assert not workers._is_lost(handed, server.runs["k/2"].state)


@pytest.mark.parametrize("state", [Pending(), Running()], ids=["before it began", "before it held its job"])
def test_a_worker_that_dies_before_it_holds_anything_is_noticed(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, state: Any) -> None:
    workers = pool(server, ledger)
    workers.give(job("k"))
    [handed] = workers._handed
    server.runs["k"].state = state
    assert not workers._is_lost(handed, state)
    monkeypatch.setattr(deployments, "UNBEGUN_S", 0.0)
    assert workers.wait().gone
    assert server.set == [("k", "CRASHED")]


def test_a_step_that_nobody_takes_says_how_to_start_a_worker(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "UNTAKEN_S", 0.0)
    lines: list[str] = []
    workers = pool(server, ledger, lines)
    workers.give(job("k"))
    [handed] = workers._handed
    for _ in range(2):
        assert not workers._is_lost(handed, server.runs["k"].state)
    assert lines == ["small/2 cut · no worker takes it; on a machine with the project: RECOMPRESS_ROOT=FOLDER prefect worker start --pool few"]


def test_a_server_that_is_away_keeps_nobody_from_work_that_was_handed_out(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger says that the step is kept, so that nobody waits for Prefect to hear of it."""
    lines: list[str] = []
    workers = pool(server, ledger, lines)
    workers.give(job("k"))
    ledger.append("step-kept", {"key": "other", "step": "s", "run": "r", "home": "h", "place": "p", "sha256": "0" * 64}, actor="worker")
    looks: list[str] = []

    def away(key: str) -> Any:
        looks.append(key)
        if len(looks) == 3:
            ledger.append("step-kept", {"key": "k", "step": "s", "run": "r", "home": "h", "place": "p", "sha256": "0" * 64}, actor="worker")
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(server, "read_flow_run", away)
    ended = workers.wait()
    assert (ended.did, ended.error, ended.gone, len(looks)) == (True, "", "", 3)
    assert set(lines) == {"small/2 cut · the Prefect server does not answer; what was handed out goes on"}


def test_a_step_is_handed_out_as_soon_as_the_server_is_back(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.patience.PAUSE_S", 0.01)
    tries: list[int] = []

    def slow_to_come(*arguments: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise httpx.HTTPStatusError("no database", request=httpx.Request("POST", "http://x"), response=httpx.Response(500))
        return server.run_deployment(*arguments, **named)

    monkeypatch.setattr(deployments, "run_deployment", slow_to_come)
    lines: list[str] = []
    workers = pool(server, ledger, lines)
    workers._patience = Patience(60, lines.append)
    workers.give(job("k"))
    assert (list(server.runs), len(tries)) == (["k"], 3)
    assert lines == ["the Prefect server does not answer; it is waited for, 60 s at most", "the Prefect server answers again"]
    monkeypatch.setattr(deployments, "run_deployment", refused)
    with pytest.raises(httpx.HTTPStatusError):
        workers.give(job("l"))


def refused(*_: Any, **__: Any) -> Any:
    raise httpx.HTTPStatusError("no", request=httpx.Request("POST", "http://x"), response=httpx.Response(401))


def test_a_run_that_prefect_has_forgotten_is_given_again(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten(key: str) -> Any:
        raise ObjectNotFound(Exception(key))

    workers = pool(server, ledger)
    workers.give(job("k"))
    monkeypatch.setattr(server, "read_flow_run", forgotten)
    assert workers.wait().gone == "gone (crashed: Prefect's database has forgotten it)"


def test_a_refusal_on_a_worker_s_machine_is_the_state_s_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, root: Path, *_: object) -> None:
            assert root == tmp_path

        def do(self, given: Any) -> bool:
            who = Ledger(tmp_path / "ledger.db").leases.holder(f"job {given.key}")
            assert who == me(), "whoever gave it sees that somebody is at it"
            if given.key == "k":
                raise StandsElsewhere("worker host takes no work")
            if given.key == "wrong":
                raise InputError("sparsity is a share")
            if given.key == "forged":
                raise ForgedStep("a result that the ledger does not know")
            return given.key == "done"

    monkeypatch.setattr(deployed, "Workshop", Refusing)
    monkeypatch.setenv("RECOMPRESS_ROOT", str(tmp_path))
    monkeypatch.setenv("RECOMPRESS_LEDGER", str(tmp_path / "ledger.db"))
    states = [do_deployed(job(key).as_json(), "") for key in ("k", "wrong", "forged", "done", "found")]
    assert [(state.type.value, state.message) for state in states] == [
        ("FAILED", "StandsElsewhere: worker host takes no work"),
        ("FAILED", "InputError: sparsity is a share"),
        ("FAILED", "IntegrityError: a result that the ledger does not know"),
        ("COMPLETED", "done"),
        ("COMPLETED", "found"),
    ]
