"""What a Prefect server has of a project: its deployments as facts to compare, and its schedules as lines to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.schedule.deployment import ENQUEUE, POOL, TAG, Deployment
from tasks.schedule.server import server_of_schedules
from tasks.schedule.timing import Timing, timing_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

DIRECTORY = "prefect.deployments.steps.set_working_directory"
"""The step before a run by which a worker in any shell works in the project's folder; ``prefect deploy`` writes the same."""
BEEN = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING", "PAUSED")


def listed(root: Path) -> list[dict[str, Any]]:
    """The schedules of this project, by name: when, when next, and how the last run ended."""
    with server_of_schedules() as client:
        return sorted((_row(client, one) for one in of_project(client, root) if one.schedules), key=lambda row: str(row["deployment"]))


def of_project(client: SyncPrefectClient, root: Path) -> list[DeploymentResponse]:
    """The deployments whose runs work in this folder."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    tagged = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
    return [one for one in tagged if folder_of(one) == str(root)]


def tell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "nothing of this project is scheduled: recompress schedule RECIPE --cron '15 3 * * *'"
    wide = {key: max(len(str(row[key])) for row in rows) for key in ("deployment", "when")}
    return "\n".join(
        f"{row['deployment']:<{wide['deployment']}}  {row['when']:<{wide['when']}}  next {row['next'] or '–':<17}  last {row['last'] or '–'}" for row in rows
    )


def _row(client: SyncPrefectClient, one: DeploymentResponse) -> dict[str, Any]:
    from prefect.client.schemas.sorting import FlowRunSort

    flow = client.read_flow(one.flow_id)
    coming = _run(client, one, ("SCHEDULED",), FlowRunSort.EXPECTED_START_TIME_ASC)
    been = _run(client, one, BEEN, FlowRunSort.EXPECTED_START_TIME_DESC)
    paused = is_paused(one)
    times = [timing.text if timing else "made by hand" for timing in timings_of(one)]
    return {
        "deployment": f"{flow.name}/{one.name}",
        "recipe": one.parameters.get("recipe", ""),
        "when": "paused" if paused else "; ".join(times),
        "next": "" if paused or coming is None else f"{coming.expected_start_time:%Y-%m-%d %H:%M}Z",
        "last": "" if been is None else f"{been.expected_start_time:%Y-%m-%d %H:%M}Z {been.state_name}",
        "message": "" if been is None or been.state is None else been.state.message or "",
    }


def _run(client: SyncPrefectClient, one: DeploymentResponse, states: tuple[str, ...], sort: Any) -> Any:
    """The first run of a deployment in one of these states, or ``None``."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType(name) for name in states]))
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=state), deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[one.id])), sort=sort, limit=1
    )
    return runs[0] if runs else None


def read_deployed(client: SyncPrefectClient, full_name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def facts_wanted(root: Path, deployment: Deployment) -> dict[str, Any]:
    return {
        "entrypoint": deployment.entrypoint,
        "parameters": dict(deployment.parameters),
        "tags": [TAG],
        "pool": POOL,
        "job_variables": deployment.job_variables,
        "limit": deployment.limit,
        "collision": ENQUEUE,
        "folder": str(root),
        "paused": False,
    }


def facts_of(there: DeploymentResponse) -> dict[str, Any]:
    """The same of what the server has."""
    limit, options = there.global_concurrency_limit, there.concurrency_options
    return {
        "entrypoint": there.entrypoint,
        "parameters": there.parameters,
        "tags": there.tags,
        "pool": there.work_pool_name,
        "job_variables": there.job_variables,
        "limit": limit.limit if limit else None,
        "collision": options.collision_strategy.value if options else None,
        "folder": folder_of(there),
        "paused": is_paused(there),
    }


def is_paused(there: DeploymentResponse) -> bool:
    return there.paused or not all(one.active for one in there.schedules)


def timings_of(there: DeploymentResponse) -> list[Timing | None]:
    return [timing_of(one.schedule) for one in there.schedules]


def folder_of(there: DeploymentResponse) -> str:
    """The folder that a deployment's runs work in; empty where nothing says so."""
    return next((str(step[DIRECTORY].get("directory", "")) for step in there.pull_steps or [] if DIRECTORY in step), "")
