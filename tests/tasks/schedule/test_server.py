"""Schedules on real servers: a SQLite server is refused by name, the same command twice changes nothing, another time changes only that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from prefect import State, flow, states
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.types import DateTime

from flows.scheduled import scheduled
from recompress.errors import ApprovalPending, InputError, StorageError, TrainingDiverged
from tasks.running.recompression import Outcome, Say
from tasks.schedule import deployed, ending, scheduling, server
from tasks.schedule.deployment import HEARTBEAT_S, POOL, deployment_of, deployment_of_watch
from tasks.schedule.prefect_yaml import write_prefect_yaml
from tasks.schedule.scheduling import put, remove
from tasks.schedule.timing import Timing
from tests.ledger.stores import new_database
from tests.servers import prefect_server
from tests.tasks.watch.small_project import make_small_project

NIGHTLY, DAILY = Timing(cron="15 3 * * *", zone="Europe/Berlin"), Timing(every_s=86_400)
pytestmark = [pytest.mark.long, pytest.mark.timeout(280)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server over either database, which Prefect's settings name."""
    home = tmp_path_factory.mktemp("server")
    database = new_database() if request.param == "postgresql" else ""
    with prefect_server(home, database, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2") as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", address)
        with temporary_settings({PREFECT_API_URL: address, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}):
            yield address


@pytest.fixture
def project(tmp_path: Path, address: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stores are taken to be in order; they are looked at elsewhere. What is wanted of the server's database is asked of it in a test of its own."""
    monkeypatch.setattr(scheduling, "check_stores", lambda _: None)
    if "sqlite" in request.node.name:
        monkeypatch.setattr(server, "lies_in_sqlite", lambda _: False)
    return make_small_project(tmp_path, model="owner/base", revision="a" * 40, sha256="b" * 64)


def everything(client: SyncPrefectClient) -> dict[str, Any]:
    """What the server has of schedules, with the times at which it was written."""
    deployments, pools, automations = client.read_deployments(), client.read_work_pools(), client.read_automations_by_name(server.AUTOMATION)
    return {
        "deployments": {one.name: one.model_dump(mode="json", exclude={"last_polled", "status", "global_concurrency_limit"}) for one in deployments},
        "pools": [(pool.name, pool.id, pool.updated) for pool in pools],
        "automations": [one.model_dump(mode="json") for one in automations],
    }


def test_the_database_of_a_server_is_told_by_what_only_postgresql_does(address: str, request: pytest.FixtureRequest) -> None:
    expected = "sqlite" in request.node.name
    with get_client(sync_client=True) as client:
        assert server.lies_in_sqlite(client) is expected
    if expected:
        with (
            pytest.raises(
                InputError, match=r"PREFECT_API_URL names, .*, keeps its runs in SQLite; start it with PREFECT_API_DATABASE_CONNECTION_URL=postgresql"
            ),
            server.server_of_schedules(),
        ):
            raise AssertionError("it was let through")


def test_twice_changes_nothing_another_time_changes_that_and_removed_is_gone(project: Path) -> None:
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    assert put(project, toy, NIGHTLY).outcome == "made"
    with get_client(sync_client=True) as client:
        before = everything(client)
        assert put(project, toy, NIGHTLY).outcome == "unchanged"
        assert everything(client) == before
        assert [pool[0] for pool in before["pools"]] == [POOL]
        [automation] = before["automations"]
        assert automation["trigger"]["within"] == 4 * HEARTBEAT_S
        assert automation["trigger"]["match_related"] == {"prefect.resource.id": ["prefect.tag.recompress"]}
        made = before["deployments"]["toy"]
        assert made["entrypoint"] == "flows.scheduled.scheduled"
        assert made["pull_steps"] == [{deployed.DIRECTORY: {"directory": str(project)}}]
        assert made["job_variables"] == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
        assert made["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert client.read_deployment(made["id"]).global_concurrency_limit.limit == 1  # type: ignore[union-attr]
        assert [(one["schedule"]["cron"], one["schedule"]["timezone"]) for one in made["schedules"]] == [("15 3 * * *", "Europe/Berlin")]

        assert put(project, toy, DAILY).outcome == "changed"
        after = everything(client)
        [changed] = after["deployments"]["toy"]["schedules"]
        assert changed["schedule"]["interval"] == 86_400
        assert after["deployments"]["toy"]["id"] == made["id"]
        assert (after["pools"], after["automations"]) == (before["pools"], before["automations"])

        client.pause_deployment(made["id"])
        assert deployed.listed(project)[0]["when"] == "paused"
        assert put(project, toy, DAILY).outcome == "changed"

        assert put(project, deployment_of_watch(project), Timing(every_s=900)).outcome == "made"
        assert [(row["deployment"], row["when"]) for row in deployed.listed(project)] == [("scheduled/toy", "every 1d"), ("watch/watch", "every 15m")]
        assert remove(project, "recipes/toy.yaml") == ["toy"]
        assert remove(project, "recipes/toy.yaml") == []
        assert remove(project, "") == ["watch"]
        assert deployed.listed(project) == []
        assert everything(client)["deployments"] == {}


def test_a_schedule_becomes_runs_to_come(project: Path) -> None:
    """With SQLAlchemy 2.1 Prefect 3.8 creates none while its health page stays green, which no version check and no ``pip check`` shows."""
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    put(project, toy, Timing(every_s=60))
    runs: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        ours = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(toy.full_name).id]))
        for _ in range(120):
            if len(runs := client.read_flow_runs(deployment_filter=ours)) >= 2:
                break
            time.sleep(0.5)
        [row] = deployed.listed(project)
        remove(project, "recipes/toy.yaml")
    assert len(runs) >= 2
    assert {(run.auto_scheduled, run.state_type, tuple(run.tags)) for run in runs} == {(True, StateType.SCHEDULED, ("auto-scheduled", "recompress"))}
    assert row["next"] == f"{min(run.expected_start_time for run in runs if run.expected_start_time):%Y-%m-%d %H:%M}Z"
    assert row["last"] == ""


def test_a_deployment_of_that_name_in_another_folder_or_of_another_recipe_stays(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    put(project, toy, NIGHTLY)
    other = make_small_project(tmp_path_factory.mktemp("other"), model="owner/base", revision="a" * 40, sha256="b" * 64)
    with get_client(sync_client=True) as client:
        before = everything(client)
        with pytest.raises(InputError, match=f"scheduled/toy on that server belongs to {project}; .*prefect deployment delete scheduled/toy"):
            put(other, deployment_of(other, other / "recipes" / "toy.yaml"), DAILY)
        assert deployed.listed(other) == []
        assert remove(other, "recipes/toy.yaml") == []
        (project / "recipes" / "toy.yaml").rename(project / "recipes" / "renamed.yaml")
        with pytest.raises(InputError, match=r"scheduled/toy on that server is of recipes/toy\.yaml"):
            put(project, deployment_of(project, project / "recipes" / "renamed.yaml"), DAILY)
        assert everything(client) == before
        assert remove(project, "recipes/toy.yaml") == ["toy"]  # its file is gone


def test_a_run_that_falls_silent_has_crashed_and_one_that_rests_or_goes_on_has_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a silence of seconds: killed while pending, while running, between two tries; ended, waiting for its turn, suspended; and alive."""
    monkeypatch.setattr(server, "SILENCE_S", 12)
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    put(project, toy, NIGHTLY)
    running, again = states.Running(), states.AwaitingRetry(scheduled_time=DateTime.now("UTC"))
    stories: dict[str, list[State]] = {
        "killed pending": [states.Pending()],
        "killed running": [states.Pending(), running],
        "killed between two tries": [states.Pending(), running, again],
        "completed": [states.Pending(), running, states.Completed()],
        "suspended": [states.Pending(), running, states.Suspended(timeout_seconds=3600)],
        "alive": [states.Pending(), running],
    }
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(toy.full_name)
        client.request("PATCH", "/deployments/{id}", path_params={"id": deployment.id}, json={"concurrency_limit": None})
        runs = {story: client.create_flow_run_from_deployment(deployment.id).id for story in stories}
        for states_now in zip_longest(*stories.values()):  # one state of each at a time: real runs, too, take a while from one to the next
            for story, state in zip(stories, states_now, strict=True):
                if state is not None:
                    client.set_flow_run_state(runs[story], state, force=True)
            time.sleep(1)
        ended: dict[str, str | None] = {}
        for _ in range(35):
            client.set_flow_run_state(runs["alive"], states.Retrying(), force=True)
            time.sleep(2)
            ended = {story: client.read_flow_run(run).state_name for story, run in runs.items()}
            if list(ended.values()).count("Crashed") >= 3:
                break
        time.sleep(6)
        ended = {story: client.read_flow_run(run).state_name for story, run in runs.items()}
        remove(project, "recipes/toy.yaml")
        monkeypatch.undo()
        server.make_automation(client)
    assert ended == {story: "Crashed" if story.startswith("killed") else story.capitalize() for story in stories} | {"alive": "Retrying"}


def test_what_prefect_deploys_from_the_file_is_what_the_command_deploys(project: Path, address: str) -> None:
    write_prefect_yaml(project)
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    with get_client(sync_client=True) as client:
        server.make_pool(client)
        environment = os.environ | {"PREFECT_API_URL": address, "PREFECT_HOME": str(project / ".prefect"), "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        for timings in ([], [NIGHTLY]):
            done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=200, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            deployed_now = client.read_deployment_by_name(toy.full_name)
            assert deployed.facts_of(deployed_now) == deployed.facts_wanted(project, toy)
            assert deployed.timings_of(deployed_now) == timings  # those that the command made stay
            assert put(project, toy, NIGHTLY).outcome == ("unchanged" if timings else "changed")
        assert [row["deployment"] for row in deployed.listed(project)] == ["scheduled/toy"]
        for name in (toy.full_name, "watch/watch", "approve/approve"):
            client.delete_deployment(client.read_deployment_by_name(name).id)


def test_an_automation_that_was_changed_is_mended_and_one_that_is_off_stays_off(project: Path) -> None:
    with get_client(sync_client=True) as client:
        server.make_automation(client)
        assert not server.make_automation(client)
        [there] = client.read_automations_by_name(server.AUTOMATION)
        spoilt = server.crash_when_silent()
        spoilt.trigger.expect = {"prefect.flow-run.heartbeat"}  # type: ignore[union-attr]
        client.update_automation(there.id, spoilt.model_copy(update={"enabled": False}))
        assert server.make_automation(client)
        [mended] = client.read_automations_by_name(server.AUTOMATION)
        assert mended.trigger == server.crash_when_silent().trigger
        assert not mended.enabled


@pytest.mark.parametrize(
    "outcome, state, message, times",
    [
        (Outcome(0, "up to date"), "Completed", "up to date", 1),
        (Outcome(4, "no variant passed"), "Completed", "refused by the gate: no variant passed", 1),
        (Outcome(7, "gone"), "Completed", "a source is not visible: gone", 1),
        (Outcome(5, "the ledger was changed"), "Failed", "exit code 5: the ledger was changed", 1),
        (ApprovalPending("plan 12 waits"), "Completed", "waits for a person: plan 12 waits", 1),
        (InputError("unknown key 'sed' (toy.yaml:7)"), "Failed", "exit code 2: unknown key 'sed' (toy.yaml:7)", 1),
        (TrainingDiverged("the loss became nan"), "Failed", "exit code 1: the loss became nan", 1),
        (StorageError("the store is away"), "Failed", "the store is away", 3),
    ],
    ids=["done", "refused", "away", "integrity", "waits", "input", "diverged", "storage"],
)
def test_an_answer_is_completed_a_mistake_fails_once_and_what_may_pass_is_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception, state: str, message: str, times: int
) -> None:
    monkeypatch.setattr(ending, "check_stores", lambda _: None)
    done: list[Path] = []

    def do(home: Path, say: Say) -> Outcome:
        done.append(home)
        say("postgresql://somebody:S3cret@127.0.0.1/ledger")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @flow(name="ends", retries=2, retry_delay_seconds=0, persist_result=False)
    def ends(root: str) -> State:
        return ending.ended(root, do)

    ended = ends(str(project), return_state=True)
    assert (ended.name, done) == (state, [project] * times)
    assert message in (ended.message or "")
    assert "\n" not in (ended.message or "")


def test_a_run_that_was_missed_is_passed_over_where_one_that_began_later_did_its_work(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = deployment_of(project, project / "recipes" / "toy.yaml")
    put(project, toy, NIGHTLY)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(toy.full_name).id
        missed = client.create_flow_run_from_deployment(deployment).model_copy(update={"auto_scheduled": True})
        monkeypatch.setattr(ending, "_this_run", lambda: missed)
        for end, expected in (
            (states.Failed(), False),
            (states.Completed(message=ending.PASSED_OVER), False),
            (states.Completed(message="version 3 is champion"), True),
        ):
            other = client.create_flow_run_from_deployment(deployment).id
            for state in (states.Running(), end):
                client.set_flow_run_state(other, state, force=True)
            assert ending._is_made_up_for() is expected, end
        assert "passed over" in str(ending.ended(str(project), lambda *_: Outcome(1, "it was done twice")).message)
        began = client.read_flow_run(other).start_time
        assert began is not None
        for change in ({"expected_start_time": began + timedelta(seconds=1)}, {"auto_scheduled": False}, {"deployment_id": None}):
            monkeypatch.setattr(ending, "_this_run", lambda change=change: missed.model_copy(update=change))
            assert not ending._is_made_up_for(), change
        remove(project, "recipes/toy.yaml")


def test_a_worker_whose_environment_names_no_stores_begins_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECOMPRESS_LEDGER", raising=False)
    ended = scheduled("recipes/toy.yaml", str(project), return_state=True)
    assert ended.name == "Failed"
    assert "exit code 2: a schedule needs PostgreSQL, and RECOMPRESS_LEDGER is not set" in (ended.message or "")
    assert not (project / "ledger").exists()
    assert not (project / ".recompress").exists()
