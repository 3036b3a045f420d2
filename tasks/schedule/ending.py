"""How a scheduled run ends in Prefect: an answer is Completed, a mistake fails at once, and what may pass is tried again.

A plan that waits for a person, a refusal by the gate and a source that is not visible are answers (exit codes 4, 6 and 7), so that nobody is woken by them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import ApprovalPending, RecompressError, StorageError, without_passwords
from tasks.running.home import check_project
from tasks.running.recompression import Outcome, Say, listener
from tasks.schedule.stores import check_stores

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

PASSED_OVER = "passed over: a run that began after this one was due has done its work"
ANSWERS = {0: "", 4: "refused by the gate: ", 6: "waits for a person: ", 7: "a source is not visible: "}


def ended(root: str, do: Callable[[Path, Say], Outcome]) -> State:
    """Do the work of a scheduled flow in its project's folder, say on Prefect's page what it says, and give the state that it ends in.

    Raises what may pass (a store that is away, a disk that is full, a project that is busy), so that Prefect tries again; what would fail in the same way a minute
    later fails at once."""
    from prefect.logging import get_run_logger
    from prefect.states import Completed, Failed

    if _is_made_up_for():
        return Completed(message=PASSED_OVER)
    home, log = Path(root).resolve(), get_run_logger()

    def say(line: str) -> None:
        log.info(without_passwords(line))

    try:
        check_project(home)
        check_stores(home)  # a worker whose environment names no stores would begin a ledger of its own
        with listener(say):
            outcome = do(home, say)
    except StorageError:
        raise
    except RecompressError as error:
        outcome = Outcome(error.exit_code, str(error))
        if not isinstance(error, ApprovalPending):
            _try_no_more()
            return Failed(message=f"exit code {error.exit_code}: {error}")
    if outcome.exit_code in ANSWERS:
        return Completed(message=ANSWERS[outcome.exit_code] + outcome.text)
    _try_no_more()
    return Failed(message=f"exit code {outcome.exit_code}: {outcome.text}")


def _this_run() -> FlowRun | None:
    """The run as the server knows it; ``None`` where somebody calls the function of a flow by hand."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


def _is_made_up_for() -> bool:
    """Whether another run of this schedule began its work after this one was due, and did it. Prefect makes up for every run that was missed, one after another: the
    first of them does what all of them would. It is never the other way round, or a schedule that is shorter than its runs would pass all of them over."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters, objects

    run = _this_run()
    if run is None or run.deployment_id is None or not run.auto_scheduled or run.expected_start_time is None:
        return False
    done = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[objects.StateType.COMPLETED]))
    since = filters.FlowRunFilterStartTime(after_=run.expected_start_time)
    deployment = filters.DeploymentFilter(id=filters.DeploymentFilterId(any_=[run.deployment_id]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=filters.FlowRunFilter(state=done, start_time=since), deployment_filter=deployment)
    return any(other.id != run.id and other.state is not None and other.state.message != PASSED_OVER for other in runs)


def _try_no_more() -> None:
    """Take the retries from this run; it is the server that keeps count."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import FlowRunPolicy

    run = _this_run()
    if run is not None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, empirical_policy=FlowRunPolicy(retries=0, retry_delay=0))
