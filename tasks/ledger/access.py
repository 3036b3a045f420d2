"""Where the ledger of this project lies, who is acting, and the records that tasks write."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import GateRefused, InputError, IntegrityError
from recompress.ledger import Ledger, NoLedger
from tasks.ledger.user import user_name

if TYPE_CHECKING:
    from recompress.recipe import Plan


def open_ledger(root: Path, *, create: bool = True) -> Ledger:
    """The project's ledger: ``ledger/ledger.db``, or what ``RECOMPRESS_LEDGER`` names (a path or a PostgreSQL URL)."""
    named = os.environ.get("RECOMPRESS_LEDGER")
    if named:
        return Ledger(named if "://" in named else Path(named), create=create)
    return Ledger(root / "ledger" / "ledger.db", create=create)


def ledger_place(root: Path) -> str:
    """Where the ledger is looked for."""
    return os.environ.get("RECOMPRESS_LEDGER") or str(root / "ledger" / "ledger.db")


def ledger_if_any(root: Path) -> Ledger | None:
    """The project's ledger; ``None`` where none was made yet, wherever it is to lie."""
    try:
        return open_ledger(root, create=False)
    except NoLedger:
        return None


def actor() -> str:
    """Who acts: ``RECOMPRESS_ACTOR``, or the user at this host. A name, not a proof; a signed approval is a proof."""
    named = os.environ.get("RECOMPRESS_ACTOR")
    return named or f"{user_name()}@{socket.gethostname()}"


def record_policy(ledger: Ledger, plan: Plan) -> None:
    """Record the policy before anything is measured. Raises ``GateRefused`` when it was changed after models of this recipe were measured under another."""
    if not check_policy(ledger, plan):
        body = {"recipe": plan.recipe.name, "policy_sha256": plan.policy.sha256, "policy": plan.policy.as_json()}
        ledger.append("policy-recorded", body, actor=actor())


def check_policy(ledger: Ledger, plan: Plan) -> bool:
    """Whether the policy is recorded already. Raises ``GateRefused`` when models of this recipe were measured under another since."""
    recipe, policy = plan.recipe.name, plan.policy.sha256
    last = ledger.last("policy-recorded", recipe=recipe)
    if last is not None and last.body["policy_sha256"] == policy:
        return True
    measured = ledger.last("variant-measured", recipe=recipe)
    if last is not None and measured is not None and measured.sequence > last.sequence:
        before = last.body["policy_sha256"]
        raise GateRefused(
            f"the policy {plan.recipe.policy} was edited after models had been measured under it (sha256 {before[:12]}…, now {policy[:12]}…); "
            f"put it back, or say why: recompress policy accept {plan.path} --reason '…'"
        )
    return False


def recorded_policy(ledger: Ledger, plan: Plan) -> str:
    """Digest of the policy that was recorded before measuring. Raises ``IntegrityError`` when the ledger knows of none."""
    last = ledger.last("policy-recorded", recipe=plan.recipe.name)
    if last is None:
        raise IntegrityError(f"the ledger knows of no policy that was recorded before {plan.recipe.name} was measured")
    return str(last.body["policy_sha256"])


def accept_policy(ledger: Ledger, plan: Plan, reason: str) -> None:
    """Record a policy that was edited after measuring, with the reason and who gave it."""
    if len(reason.strip()) < 10:
        raise InputError(f"--reason is for whoever reads the ledger later: at least 10 characters, got {reason!r}")
    body = {"recipe": plan.recipe.name, "policy_sha256": plan.policy.sha256, "policy": plan.policy.as_json(), "reason": reason.strip()}
    ledger.append("policy-recorded", body, actor=actor())
