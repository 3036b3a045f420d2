"""Workers on other machines: each step is a run of one deployment, which the workers of a Prefect process work pool take.

The step's key is the run's idempotency key, so that two runs that lack the same step ask for it once. Models go through MLflow by digest; Prefect carries the job
and how it ended, and may forget both. Whether a machine is gone is seen by its lease on the step, and whether a step is done by the ledger: so a server that is away
for a while keeps nobody from work that was handed out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed

from recompress.errors import InputError, StorageError
from recompress.ledger import Ledger
from recompress.patience import Patience
from tasks.running.leases import LEASE_S, is_gone
from tasks.running.recompression import PATIENCE_S
from tasks.tracking.memory import KIND
from tasks.workers.deployed import ROOT
from tasks.workers.job import Ended, Job, StandsElsewhere, leases_of

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

FLOW, ENTRYPOINT = "recompress-step", "flows.step.step"
LOOK_S = 1.0
UNTAKEN_S = 30.0
"""After which it is said that no worker takes a step."""
UNBEGUN_S = 120.0
"""How long a worker's process may take from when it was begun until it holds its job, which it does first of all. It took half a minute on a machine with four times
as much to do as it has cores; one that is given up too early does no harm, for a step is done by one process at a time."""
Say = Callable[[str], None]
Answer = TypeVar("Answer")


@dataclass
class Handed:
    """A job that was handed out."""

    job: Job
    run: Any
    """The id of the flow run."""
    since: float = field(default_factory=time.monotonic)
    taken: float | None = None
    """When a worker had taken it."""
    seen: float | None = None
    """When it was last held by a lease."""
    said: bool = False
    kept: int = 0
    """The number of the ledger's last record of this step before it was handed out."""


class Deployments:
    """At most ``count`` jobs at a time in the work pool ``pool``. Raises ``InputError`` where there is no such pool."""

    def __init__(self, ledger: Ledger, pool: str, count: int, say: Say) -> None:
        self._ledger, self._pool, self._count, self._say = ledger, pool, count, say
        self._patience = Patience(PATIENCE_S, say)
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
            run = self._ask(partial(self._run_of, job, number))
            if run.state is not None and not run.state.is_final() and not self._is_stale(run, job):
                self._handed.append(Handed(job, run.id, kept=self._kept(job)))
                return

    def _run_of(self, job: Job, number: int) -> FlowRun:
        """The run of this step's key, and of this number of it; a request that is sent twice finds what the first one made."""
        run = run_deployment(
            f"{FLOW}/{self._pool}",
            parameters={"job": job.as_json()},
            flow_run_name=job.name,
            idempotency_key=job.key if number == 1 else f"{job.key}/{number}",
            timeout=0,
            as_subflow=False,
        )
        assert not isawaitable(run)  # nobody awaits anything here
        return run

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        return self._patience.ask("the Prefect server", question, is_away)

    def _kept(self, job: Job) -> int:
        last = self._ledger.last(KIND, key=job.key)
        return 0 if last is None else last.sequence

    def _is_stale(self, run: FlowRun, job: Job) -> bool:
        """Whether a job lay there from a run of another commit or other packages, and nobody has begun with it; it is taken away."""
        begun = run.state is not None and run.state.is_running()
        if begun or (run.parameters.get("job") or {}).get("standing") == job.standing:
            return False
        self._ask(lambda: self._client.set_flow_run_state(run.id, Cancelled(message="of a run of another commit"), force=True))
        return True

    def wait(self) -> Ended:
        """How the next job ended."""
        while True:
            for handed in self._handed:
                state = self._state_of(handed)
                if self._kept(handed.job) > handed.kept:
                    state = Completed(message="done")  # it is there, whatever Prefect has heard of it
                if state is not None and (state.is_final() or self._is_lost(handed, state)):
                    self._handed.remove(handed)
                    return _ended(handed.job, state, time.monotonic() - handed.since)
            time.sleep(LOOK_S)

    def _state_of(self, handed: Handed) -> State | None:
        """What Prefect knows of a job; ``None`` while its server is away."""
        try:
            return self._client.read_flow_run(handed.run).state
        except ObjectNotFound:
            return Crashed(message="Prefect's database has forgotten it")
        except httpx.HTTPError as error:
            if not is_away(error):
                raise
            self._say(f"{handed.job.name} · the Prefect server does not answer; what was handed out goes on")
            return None

    def _is_lost(self, handed: Handed, state: State) -> bool:
        """Whether whoever took a job is gone: its lease has run out, or is that of a dead process of this machine, or it never came to hold one."""
        now = time.monotonic()
        if state.is_scheduled():
            if now - handed.since > UNTAKEN_S and not handed.said:
                handed.said = True
                self._say(f"{handed.job.name} · no worker takes it; on a machine with the project: {ROOT}=FOLDER prefect worker start --pool {self._pool}")
            return False
        handed.taken = handed.taken or now
        leases = self._ledger.leases
        holders = {name: holder for name in leases_of(handed.job.key) if (holder := leases.holder(name)) is not None}
        if any(not is_gone(holder) for holder in holders.values()):
            handed.seen = now
            return False
        silent_for = now - (handed.seen or handed.taken)
        lost = bool(holders) or silent_for > (LEASE_S if handed.seen is not None else UNBEGUN_S)
        for name, holder in holders.items():
            leases.take_away(name, holder)  # or whoever gets the job next would be taken for the dead
        if lost:
            self._ask(lambda: self._client.set_flow_run_state(handed.run, Crashed(message="its worker is gone"), force=True))
        return lost

    def close(self) -> None:
        """Take away what nobody has begun with. What is being done is done to its end, and found by the next run."""
        for handed in self._handed:
            with suppress(Exception):  # the server may be what is gone
                state = self._client.read_flow_run(handed.run).state
                if state is not None and not state.is_running():
                    self._client.set_flow_run_state(handed.run, Cancelled(message="the run has ended"), force=True)
        self._open.close()


def is_away(error: Exception) -> bool:
    """Whether Prefect's server could not be reached, or answers with an error of its own: its database may be away."""
    return isinstance(error, httpx.TransportError) or (isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500)


def _ended(job: Job, state: State, seconds: float) -> Ended:
    message = state.message or ""
    if state.is_completed():
        return Ended(job=job, did=message == "done", seconds=seconds)
    if state.is_failed():
        kind, _, error = message.partition(": ")
        if kind == StorageError.__name__:
            return Ended(job=job, gone=f"stopped by what may pass ({error})")
        if kind == StandsElsewhere.__name__:
            return Ended(job=job, elsewhere=error)
        return Ended(job=job, error=error or message, kind=kind)
    return Ended(job=job, gone=f"gone ({state.type.value.lower()}: {message})" if state.is_final() else "gone")
