"""A person decides in the Prefect page: the run waits, suspended, for a form without a prefilled answer.

prefect deploy --name approve, then in the page: Deployments, approve, Run, with the digest of the plan that waits
"""

from __future__ import annotations

from prefect import flow
from prefect.flow_runs import suspend_flow_run

from tasks.people.form import Decision, carry_out, pause_key, record, show_plan


@flow(name="approve", flow_run_name="approve {plan}", persist_result=True)
def approve(plan: str, root: str = ".") -> str:
    """Show a plan, wait for a person, write down what they say, and carry it out if they approve. Gives the new version, or ``rejected``."""
    show_plan(plan, root)
    decision = suspend_flow_run(wait_for_input=Decision, key=pause_key(plan))
    if not record(plan, root, decision):
        return "rejected"
    return carry_out(plan, root)
