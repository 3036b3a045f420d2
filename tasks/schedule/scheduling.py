"""Put a schedule of a project on a Prefect server, or take it away. What is there already and says the same is left as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recompress.errors import InputError
from tasks.schedule.deployed import DIRECTORY, facts_of, facts_wanted, folder_of, of_project, read_deployed, timings_of
from tasks.schedule.deployment import ENQUEUE, POOL, TAG, Deployment
from tasks.schedule.server import has_worker, make_automation, make_pool, server_of_schedules
from tasks.schedule.stores import check_stores
from tasks.schedule.timing import Timing

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

WORKER = f"prefect worker start --pool {POOL}"


@dataclass(frozen=True)
class Scheduled:
    """What was done about one deployment, and what it needs besides."""

    deployment: str
    timing: Timing
    outcome: Literal["made", "changed", "unchanged"]
    worker: bool
    """Whether a worker is there to run what is due."""

    def as_json(self) -> dict[str, Any]:
        return {"deployment": self.deployment, **self.timing.as_json(), "outcome": self.outcome, "work_pool": POOL, "worker": self.worker}

    def text(self) -> str:
        line = f"{self.deployment}: {self.timing.text}, {self.outcome}"
        return line if self.worker else f"{line}\nno worker is there, so nothing runs yet: {WORKER}"


def put(root: Path, deployment: Deployment, timing: Timing) -> Scheduled:
    """Deploy with this schedule and no other. Raises ``InputError`` before anything is made."""
    check_stores(root)
    with server_of_schedules() as client:
        before = read_deployed(client, deployment.full_name)
        _check_ours(root, deployment, before)
        make_pool(client)
        make_automation(client)
        same = before is not None and facts_of(before) == facts_wanted(root, deployment) and timings_of(before) == [timing]
        if not same:
            _deploy(client, root, deployment, timing)
        return Scheduled(deployment.full_name, timing, "unchanged" if same else "changed" if before is not None else "made", has_worker(client))


def remove(root: Path, recipe: str) -> list[str]:
    """Take the deployment of a recipe away (of the watch, where it is ``""``), with its schedule and the runs that were to come; runs that were stay on record.
    Gives the names of what went. The recipe's file need not be there any more."""
    with server_of_schedules() as client:
        gone = [one for one in of_project(client, root) if one.schedules and one.parameters.get("recipe", "") == recipe]
        for one in gone:
            client.delete_deployment(one.id)
        return [one.name for one in gone]


def _check_ours(root: Path, deployment: Deployment, there: DeploymentResponse | None) -> None:
    """Raises ``InputError`` for a deployment of that name which belongs to another folder or recipe."""
    if there is None:
        return
    if folder_of(there) not in ("", str(root)):
        raise InputError(
            f"{deployment.full_name} on that server belongs to {folder_of(there)}; give this project a name of its own (project: in params.yaml), or take that one away: prefect deployment delete {deployment.full_name}"
        )
    if there.parameters.get("recipe", deployment.parameters.get("recipe")) != deployment.parameters.get("recipe"):
        raise InputError(
            f"{deployment.full_name} on that server is of {there.parameters['recipe']}; give one of the two recipes another name, or take that one away: prefect deployment delete {deployment.full_name}"
        )


def _deploy(client: SyncPrefectClient, root: Path, deployment: Deployment, timing: Timing) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow: Any = load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)  # what a worker will load has to be there
    client.create_deployment(
        flow_id=client.create_flow_from_name(deployment.flow),
        name=deployment.name,
        description=deployment.description,
        entrypoint=deployment.entrypoint,
        parameters=dict(deployment.parameters),
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        tags=[TAG],
        work_pool_name=POOL,
        job_variables=deployment.job_variables,
        concurrency_limit=deployment.limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy(ENQUEUE)),
        pull_steps=[{DIRECTORY: {"directory": str(root)}}],
        schedules=[DeploymentScheduleCreate(schedule=timing.as_prefect(), active=True)],
        paused=False,
    )
