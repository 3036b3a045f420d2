"""One step of a variant on another machine: ``recompress run RECIPE --workers N --pool NAME`` makes the deployment, and its runs are taken by

prefect worker start --pool NAME        (with RECOMPRESS_ROOT naming the project's folder there)
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.workers.deployed import do_deployed


@flow(name="recompress-step", validate_parameters=False, persist_result=False)
def step(job: dict[str, Any], root: str = "") -> State:
    """Do the step that the job names by its key, if this machine's commit, constraints and packages are those of the run; else refuse in one line."""
    return do_deployed(job, root)
