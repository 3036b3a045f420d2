"""The form in the Prefect page: a run that is suspended, a decision that nobody prefilled, the same record as the command writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.testing.utilities import prefect_test_harness

from recompress.records import ApprovalRule
from tests.evidence.people import People


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def begin(plan: str, root: Path) -> Any:
    """A run of the deployment, suspended at its form."""
    from flows.approve import approve

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(approve)
        deployment = client.create_deployment(flow_id=flow_id, name=f"approve {plan[:8]}")
        started = client.create_flow_run_from_deployment(deployment, parameters={"plan": plan, "root": str(root)})
    return step(started.id)


def step(run_id: Any) -> Any:
    """Let a worker take the run up, as far as it goes; the run afterwards."""
    from flows.approve import approve

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        with suppress(Pause):
            run_flow(approve, flow_run=run, parameters=run.parameters, return_type="state")
        return client.read_flow_run(run_id)


def fill_in(run: Any, **fields: str) -> Any:
    with get_client(sync_client=True) as client:
        answer = client.resume_flow_run(run.id, run_input=fields)
    return answer.status.value


@pytest.mark.slow
def test_a_form_writes_the_same_record_as_the_command(server: None, people: People) -> None:
    rule = ApprovalRule(required=True, not_the_author=True)
    plan = people.propose(1, rule)
    run = begin(plan, people.root)
    assert run.state.name == "Suspended"
    assert people.ledger.last("approval") is None

    for fields in (
        {},
        {"plan": plan, "approver": "bob"},
        {"decision": "maybe", "plan": plan, "approver": "bob"},
        {"decision": "approve", "plan": plan[:12], "approver": "bob"},
    ):
        assert fill_in(run, **fields) == "REJECT", "the form takes nothing that is not a whole decision"
    assert fill_in(run, decision="approve", plan=plan, approver="bob") == "ACCEPT"
    assert step(run.id).state.is_completed()
    assert people.registry.champion("ner") == "1"

    by_form = people.ledger.last("approval")
    other = people.propose(2, rule)
    assert people.call("approve", other, actor="bob")[0] == 0
    by_command = people.ledger.last("approval")
    assert by_form is not None
    assert by_command is not None
    assert by_form.body.keys() == by_command.body.keys()
    assert (by_form.actor, by_form.body["approver"]) == (by_command.actor, by_command.body["approver"]) == ("bob", "bob")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decision": "approve", "approver": "ada"}, "asks for the approval of somebody else"),
        ({"decision": "approve", "approver": "bob", "plan": "0" * 64}, "the form names plan 0000"),
        ({"decision": "reject", "approver": "bob"}, "needs a reason"),
    ],
)
def test_a_form_that_decides_nothing_fails_the_run_and_writes_nothing(server: None, people: People, fields: dict[str, str], message: str) -> None:
    plan = people.propose(1, ApprovalRule(required=True, not_the_author=True))
    run = begin(plan, people.root)
    before = people.ledger.head()
    assert fill_in(run, **({"plan": plan} | fields)) == "ACCEPT"
    ended = step(run.id)
    assert ended.state.is_failed()
    assert message in ended.state.message
    assert people.ledger.head() == before
    assert people.registry.champion("ner") is None


@pytest.mark.slow
def test_a_rejection_by_form_ends_the_plan(server: None, people: People) -> None:
    plan = people.propose(1, ApprovalRule(required=True))
    run = begin(plan, people.root)
    assert fill_in(run, decision="reject", plan=plan, approver="bob", reason="not before Monday") == "ACCEPT"
    assert step(run.id).state.is_completed()
    rejected = people.ledger.last("rejection")
    assert rejected is not None
    assert (rejected.actor, rejected.body["reason"]) == ("bob", "not before Monday")
