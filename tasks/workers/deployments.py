"""Workers on other machines: each step is a run of one deployment, which the workers of a Prefect process work pool take.

The step's key is the run's idempotency key, so that two runs that lack the same step ask for it once. Models go through MLflow by digest; Prefect carries the job
and how it ended, and may forget both. Whether a machine is gone is seen by its lease on the step.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed

from recompress.errors import InputError, RecompressError
from recompress.ledger import Ledger
from tasks.running.leases import LEASE_S, is_gone
from tasks.workers.at_work import Workshop
from tasks.workers.job import Ended, Job
from tasks.workers.standing import standing_of

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

FLOW, ENTRYPOINT = "recompress-step", "flows.step.step"
ROOT = "RECOMPRESS_ROOT"
"""Names the project's folder on a worker's machine."""
LOOK_S = 1.0
UNTAKEN_S = 30.0
"""After which it is said that no worker takes a step."""
UNBEGUN_S = 1800.0
"""How long a worker may bring data and a base before it begins with its step."""
Say = Callable[[str], None]


@dataclass
class Handed:
    """A job that was handed out."""

    job: Job
    run: Any
    """The id of the flow run."""
    since: float = field(default_factory=time.monotonic)
    seen: float | None = None
    """When its step was last held by a lease."""
    said: bool = False


class Deployments:
    """At most ``count`` jobs at a time in the work pool ``pool``. Raises ``InputError`` where there is no such pool."""

    def __init__(self, ledger: Ledger, pool: str, count: int, say: Say) -> None:
        self._ledger, self._pool, self._count, self._say = ledger, pool, count, say
        self._handed: list[Handed] = []
        self._tried: Counter[str] = Counter()
        self._open = ExitStack()
        self._client = self._open.enter_context(get_client(sync_client=True))
        try:
            self._client.read_work_pool(pool)
        except ObjectNotFound:
            raise InputError(f"the Prefect server has no work pool {pool!r}; make one: prefect work-pool create {pool} --type process") from None
        RunnerDeployment(name=pool, flow_name=FLOW, entrypoint=ENTRYPOINT, work_pool_name=pool, enforce_parameter_schema=False).apply()

    @property
    def free(self) -> int:
        return self._count - len(self._handed)

    def give(self, job: Job) -> None:
        """Hand a job out, or wait with others for the run that has its key already. One that has ended without a result is followed by another."""
        while True:
            self._tried[job.key] += 1
            number = self._tried[job.key]
            run = run_deployment(
                f"{FLOW}/{self._pool}",
                parameters={"job": job.as_json()},
                flow_run_name=job.name,
                idempotency_key=job.key if number == 1 else f"{job.key}/{number}",
                timeout=0,
                as_subflow=False,
            )
            assert not isawaitable(run)  # nobody awaits anything here
            if run.state is not None and not run.state.is_final() and not self._is_stale(run, job):
                self._handed.append(Handed(job, run.id))
                return

    def _is_stale(self, run: FlowRun, job: Job) -> bool:
        """Whether a job lay there from a run of another commit or other packages, and nobody has begun with it; it is taken away."""
        begun = run.state is not None and run.state.is_running()
        if begun or (run.parameters.get("job") or {}).get("standing") == job.standing:
            return False
        self._client.set_flow_run_state(run.id, Cancelled(message="of a run of another commit"), force=True)
        return True

    def wait(self) -> Ended:
        """How the next job ended."""
        while True:
            for handed in self._handed:
                state = self._client.read_flow_run(handed.run).state
                if state is not None and (state.is_final() or self._is_lost(handed, state)):
                    self._handed.remove(handed)
                    return _ended(handed.job, state, time.monotonic() - handed.since)
            time.sleep(LOOK_S)

    def _is_lost(self, handed: Handed, state: State) -> bool:
        """Whether whoever took a job is gone: its lease on the step has run out, or is that of a dead process of this machine."""
        now = time.monotonic()
        if not state.is_running():
            if now - handed.since > UNTAKEN_S and not handed.said:
                handed.said = True
                self._say(f"{handed.job.name} · no worker takes it; on a machine with the project: {ROOT}=FOLDER prefect worker start --pool {self._pool}")
            return False
        holder = self._ledger.leases.holder(f"step {handed.job.key}")
        if holder is not None and not is_gone(holder):
            handed.seen = now
            return False
        silent_since = handed.seen if handed.seen is not None else handed.since
        lost = holder is not None or now - silent_since > (LEASE_S if handed.seen is not None else UNBEGUN_S)
        if lost:
            self._client.set_flow_run_state(handed.run, Crashed(message="its worker is gone"), force=True)
        return lost

    def close(self) -> None:
        """Take away what nobody has begun with. What is being done is done to its end, and found by the next run."""
        for handed in self._handed:
            with suppress(Exception):  # the server may be what is gone
                state = self._client.read_flow_run(handed.run).state
                if state is not None and not state.is_running():
                    self._client.set_flow_run_state(handed.run, Cancelled(message="the run has ended"), force=True)
        self._open.close()


def _ended(job: Job, state: State, seconds: float) -> Ended:
    message = state.message or ""
    if state.is_completed():
        return Ended(job=job, did=message == "done", seconds=seconds)
    if state.is_failed():
        kind, _, error = message.partition(": ")
        return Ended(job=job, error=error or message, kind=kind)
    return Ended(job=job, gone=f"gone ({state.type.value.lower()}: {message})" if state.is_final() else "gone")


def do_deployed(job: dict[str, Any], root: str) -> State:
    """A worker's part: do the job in the project that lies on this machine. What it refuses or what a step raises is the state's message."""
    try:
        place = Path(root or os.environ.get(ROOT) or ".").resolve()
        did = Workshop(place, standing_of(place), lambda _: None).do(Job.model_validate(job))
    except RecompressError as error:
        return Failed(message=f"{type(error).__name__}: {error}")
    return Completed(message="done" if did else "found")
