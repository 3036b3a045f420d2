"""Deciding in the Prefect page: the form, and what becomes of it. It ends in the very same records as ``recompress approve`` and ``recompress reject``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.input import RunInput
from pydantic import Field

from recompress.errors import InputError
from recompress.integrity.digest import sha256_json
from tasks.people import decide
from tasks.running.project import Project

log = logging.getLogger(__name__)


class Decision(RunInput):
    """What a person says about the plan that this run shows under Artifacts. Nothing is filled in: whoever decides writes all of it."""

    decision: Literal["approve", "reject"]
    plan: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="The whole digest of the plan, as it stands in the artifact.")]
    approver: Annotated[str, Field(min_length=1, max_length=200, description="Your name. The ledger keeps it for ever.")]
    reason: Annotated[str, Field(max_length=2000, description="Needed for a rejection.")] = ""


@task(task_run_name="show plan", cache_policy=NO_CACHE, persist_result=False)
def show_plan(digest: str, root: str) -> None:
    """Lay the plan out as an artifact of this run. Raises ``InputError`` for a digest that no open plan has, and ``GateRefused`` for a plan that has ended."""
    _, text = decide.look(Project(Path(root).resolve()), digest)
    create_markdown_artifact(f"```\n{text}\n```\n", key=f"plan-{digest[:12]}", description=f"Plan {digest}")


@task(task_run_name="record decision", cache_policy=NO_CACHE, persist_result=False)
def record(digest: str, root: str, decision: Decision) -> bool:
    """Write what a person said into the ledger; whether the plan may go on. Raises ``InputError`` when the form names another plan."""
    if decision.plan != digest:
        raise InputError(f"the form names plan {decision.plan}, this run is about {digest}; nothing was recorded")
    project = Project(Path(root).resolve())
    if decision.decision == "reject":
        decide.reject(project, digest, decision.reason, person=decision.approver)
        return False
    decide.approve(project, digest, person=decision.approver)
    return True


@task(task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def carry_out(digest: str, root: str) -> str:
    """Carry out the plan that was approved; the version that is champion now."""
    return decide.carry_out(Project(Path(root).resolve()), digest, log.info).version


def pause_key(digest: str) -> str:
    """One pause for one plan, however often the flow's body runs."""
    return sha256_json({"approve": digest})[:32]
