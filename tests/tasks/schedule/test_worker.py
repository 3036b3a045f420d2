"""A schedule on PostgreSQL from end to end: a run begins at its time in a worker's hands and ends; one that is killed is named Crashed, and the next goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.flows.toy_project import RECIPE, make_project
from tests.ledger.stores import new_database
from tests.servers import mlflow_server, prefect_server

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
REPOSITORY = Path(__file__).parents[3]
ONE_VARIANT = RECIPE.split("  small:")[0] + "policy: policies/toy.yaml\nregister: {{model: toy}}\n"


class Team:
    """A project, its three databases, and whoever works in it from a shell elsewhere."""

    def __init__(self, project: Path, elsewhere: Path, prefect: str, mlflow: str, ledger: str) -> None:
        self.project, self.elsewhere, self.api = project, elsewhere, prefect
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING", "RECOMPRESS_"))}
        self.environment = outside | {
            "PREFECT_API_URL": prefect,
            "PREFECT_HOME": str(elsewhere / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "MLFLOW_TRACKING_URI": mlflow,
            "RECOMPRESS_LEDGER": ledger,
            "RECOMPRESS_ACTOR": "tester",
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def schedule(self, *arguments: str, code: int = 0) -> Any:
        command = [sys.executable, "-m", "flows.cli", "--root", str(self.project), "schedule", *arguments, "--json"]
        done = subprocess.run(command, cwd=self.elsewhere, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr[-3000:]
        return json.loads(done.stdout)

    @contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "recompress"]
        with (self.elsewhere / "worker.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.elsewhere, env=self.environment | environment, stdout=log, stderr=log)
            try:
                yield process
            finally:
                kill_all(process)

    def runs(self) -> list[dict[str, Any]]:
        """The runs that were begun or are at work, by when they should have begun."""
        answer = httpx2.post(f"{self.api}/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}, timeout=30).json()
        return [run for run in answer if run["state_type"] != "SCHEDULED"]

    def wait(self, what: Callable[[], Any], seconds: float) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := what():
                return found
            time.sleep(1)
        states = [(run["name"], run["state_name"], run["state"]["message"]) for run in self.runs()]
        raise AssertionError(f"{states}\n{(self.elsewhere / 'worker.log').read_text()[-4000:]}")


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a worker and everything that it started, the runs before it so that nobody is left to report them."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    home, project = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("team") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.flows.toy_project.RECIPE", ONE_VARIANT)
        make_project(project)
    settings = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
    with prefect_server(home, new_database(), **settings) as prefect, mlflow_server(home, new_database()) as mlflow:
        yield Team(project, home, prefect, mlflow, new_database())


def test_a_run_begins_at_its_time_is_killed_named_and_made_up_for(team: Team) -> None:
    made = team.schedule("recipe.yaml", "--every", "1m")
    assert (made["deployment"], made["outcome"], made["worker"]) == ("scheduled/toy", "made", False)
    assert team.schedule("recipe.yaml", "--every", "1m")["outcome"] == "unchanged"

    with team.worker() as worker:
        [first] = team.wait(lambda: [run for run in team.runs() if run["state_name"] == "Running"], 150)
        assert first["auto_scheduled"]
        team.wait(lambda: _heartbeats(team, first), 60)
        kill_all(worker)
    assert _state(team, first) == "Running"
    team.wait(lambda: _state(team, first) == "Crashed", 240)
    crashed = next(run for run in team.runs() if run["id"] == first["id"])
    assert "No heartbeat for 120 s" in crashed["state"]["message"]

    with team.worker():
        done = team.wait(lambda: [run for run in team.runs() if run["state_name"] == "Completed" and not _is_passed_over(run)], 600)
        assert "champion" in done[0]["state"]["message"]
        team.wait(lambda: [run for run in team.runs() if _is_passed_over(run)], 240)
        ended = [run for run in team.runs() if run["state_name"] == "Completed"]
        worked = [run for run in ended if not _is_passed_over(run)]
        for over in filter(_is_passed_over, ended):
            assert any(over["expected_start_time"] <= run["start_time"] for run in worked), "what was due while nobody could begin it"
        assert {run["state_type"] for run in team.runs()} <= {"CRASHED", "COMPLETED", "RUNNING", "PENDING"}
        assert len([run for run in team.runs() if run["state_name"] == "Running"]) <= 1
    [row] = team.schedule()
    assert row["deployment"] == "scheduled/toy"
    assert team.schedule("recipe.yaml", "--remove") == {"removed": ["toy"]}


def _is_passed_over(run: dict[str, Any]) -> bool:
    return "passed over" in (run["state"]["message"] or "")


def _heartbeats(team: Team, run: dict[str, Any]) -> bool:
    asked = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run['id']}"]}}}
    return bool(httpx2.post(f"{team.api}/events/filter", json=asked, timeout=30).json()["total"])


def _state(team: Team, run: dict[str, Any]) -> str:
    return str(httpx2.get(f"{team.api}/flow_runs/{run['id']}", timeout=30).json()["state_name"])
