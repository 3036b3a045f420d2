"""What a worker of a Prefect work pool does with a job: it holds it from the first moment on, so that whoever gave it sees when this process is gone."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.states import Completed, Failed

from recompress.errors import RecompressError, kind_of
from recompress.ledger.database import LedgerAway
from recompress.patience import Patience
from tasks.ledger.access import open_ledger
from tasks.running.leases import held, take
from tasks.running.recompression import PATIENCE_S
from tasks.workers.at_work import Workshop
from tasks.workers.job import Job, StandsElsewhere, leases_of
from tasks.workers.standing import standing_of

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

ROOT = "RECOMPRESS_ROOT"
"""Names the project's folder on a worker's machine."""


def do_deployed(job: dict[str, Any], root: str) -> State:
    """A worker's part: do the job in the project that lies on this machine. What it refuses or what a step raises is the state's message."""
    try:
        place = Path(root or os.environ.get(ROOT) or ".").resolve()
        given = Job.model_validate(job)
        ledger = Patience(PATIENCE_S).ask("the ledger", lambda: open_ledger(place), lambda error: isinstance(error, LedgerAway))
        with ExitStack() as holding:
            lease = take(ledger, leases_of(given.key)[0])
            if lease is not None:  # somebody may hold it who was given up for gone; the step itself is done by one of the two
                holding.enter_context(held(ledger, lease))
            did = Workshop(place, standing_of(place), lambda _: None).do(given)
    except StandsElsewhere as error:
        return Failed(message=f"{StandsElsewhere.__name__}: {error}")
    except RecompressError as error:
        return Failed(message=f"{kind_of(error)}: {error}")
    return Completed(message="done" if did else "found")
