"""The Prefect server of a schedule: that there is one, that its database is PostgreSQL, its work pool, and what looks after runs that were killed.

Which database a server has is asked by what only PostgreSQL does, because its settings hide the URL: a backslash in a pattern of LIKE makes the next letter stand
for itself there, and is a letter like others in SQLite. So ``Se\\cret`` finds the block type ``Secret``, which every server registers when it starts, or it does not.

Sources: PostgreSQL documentation, "LIKE"; SQLite documentation, "The LIKE, GLOB, REGEXP, MATCH, and extract operators"; Prefect documentation, "How to detect and
respond to zombie flows".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from recompress.errors import InputError, StorageError
from tasks.running.prefect_server import URL, check_server, named_server
from tasks.schedule.deployment import HEARTBEAT_S, POOL, TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

OVER_POSTGRESQL = "PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://USER@HOST/DATABASE prefect server start"
SILENCE_S = 4 * HEARTBEAT_S
"""So long a run may say nothing before it is taken for killed."""
AUTOMATION = "recompress: a run whose heartbeat stopped has crashed"
ALIVE = ("heartbeat", "Submitting", "Pending", "InfrastructurePending", "Running", "AwaitingRetry", "Retrying")
"""What a run says that goes on: from each of these the silence counts anew. Runs may be killed before their first heartbeat and between two tries, too."""
AT_REST = ("Completed", "Failed", "TimedOut", "Cancelled", "Cancelling", "Crashed", "Scheduled", "Late", "AwaitingConcurrencySlot", "Paused", "Suspended")
"""After these nothing more is expected."""


@contextmanager
def server_of_schedules() -> Iterator[SyncPrefectClient]:
    """A client of the server that Prefect's settings name. Raises ``InputError`` where none is named or it is SQLite's, ``StorageError`` where it does not answer or refuses."""
    named = named_server()
    if named is None:
        raise InputError(f"a schedule needs a Prefect server, and {URL} names none; start one ({OVER_POSTGRESQL}) and set {URL}=http://HOST:4200/api")
    check_server(named, way_out=f"start it: {OVER_POSTGRESQL}")
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            if lies_in_sqlite(client):
                raise InputError(
                    f"a schedule needs PostgreSQL, and the Prefect server that {named.where} names, {named.url}, keeps its runs in SQLite; start it with {OVER_POSTGRESQL}"
                )
            yield client
    except httpx.HTTPError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(f"the Prefect server {named.url} refused or went away: {reason}; look at its log and run again") from None


def lies_in_sqlite(client: SyncPrefectClient) -> bool | None:
    """Whether the server's database is SQLite. ``None`` where it cannot be told: it registers no block types. Nothing is written."""
    if not _finds(client, "Secret"):
        return None
    return not _finds(client, r"Se\cret")


def _finds(client: SyncPrefectClient, pattern: str) -> bool:
    return bool(client.request("POST", "/block_types/filter", json={"block_types": {"name": {"like_": pattern}}, "limit": 1}).json())


def make_pool(client: SyncPrefectClient) -> bool:
    """Make the work pool where there is none; gives whether it was made. Raises ``InputError`` for one of another type."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        return True
    if pool.type != "process":
        raise InputError(f"the work pool {POOL!r} of that server is of type {pool.type}, and runs here are processes; delete it, or use another server")
    return False


def has_worker(client: SyncPrefectClient) -> bool:
    """Whether anybody runs what is due."""
    return any(str(getattr(worker.status, "value", worker.status)) == "ONLINE" for worker in client.read_workers_for_work_pool(POOL))


def make_automation(client: SyncPrefectClient) -> bool:
    """Make the automation that marks killed runs as crashed, or bring it up to date; gives whether anything changed. One that somebody switched off stays off."""
    wanted = crash_when_silent()
    there = client.read_automations_by_name(AUTOMATION)
    if not there:
        client.create_automation(wanted)
        return True
    first = there[0]
    if first.trigger == wanted.trigger and first.actions == wanted.actions:
        return False
    client.update_automation(first.id, wanted.model_copy(update={"enabled": first.enabled}))
    return True


def crash_when_silent() -> AutomationCore:
    """A run of ours that has begun, and then for ``SILENCE_S`` says neither that it is alive nor that it came to rest, becomes Crashed. Prefect then gives its place to
    the next one, which goes on after the last finished step."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    alive, at_rest = ({f"prefect.flow-run.{said}" for said in words} for words in (ALIVE, AT_REST))
    return AutomationCore(
        name=AUTOMATION,
        description=f"After {SILENCE_S} s without a heartbeat. Made by `recompress schedule`; looks after runs with the tag {TAG}.",
        trigger=EventTrigger(
            after=alive,
            expect=alive | at_rest,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{TAG}"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, force=False, message=f"No heartbeat for {SILENCE_S} s: the run was killed, or its machine is gone."
            )
        ],
    )
