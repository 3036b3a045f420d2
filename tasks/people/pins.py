"""What is pinned for a registered model: looked at, pinned, lifted; and baselines that a person lets count although they are worse than the last accepted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recompress.errors import InputError
from recompress.integrity.signing import read_private_key
from recompress.ledger import Entry
from recompress.policy import read_policy
from recompress.promotion import pins
from recompress.settings.base import Slug
from recompress.strictness import DIRECTIONS, dials_of
from tasks.ledger.access import actor
from tasks.ledger.keys import approvers
from tasks.running.project import Project


def pin(project: Project, model: str, policy: Path, reason: str, key: Path | None) -> Entry:
    """Pin the policy in a file. Raises as ``recompress.promotion.pins.pin`` does."""
    _check_name(model)
    elsewhere = project.root / policy
    rules = read_policy(elsewhere if not policy.is_file() and elsewhere.is_file() else policy)
    private = read_private_key(key) if key else None
    return pins.pin(project.beginning, model, rules, actor=actor(), reason=reason, signers=approvers(project.root), key=private)


def unpin(project: Project, model: str, reason: str, key: Path | None) -> Entry:
    return pins.unpin(project.ledger, model, actor=actor(), reason=reason, signers=approvers(project.root), key=read_private_key(key) if key else None)


def pinned(project: Project, model: str | None) -> list[dict[str, Any]]:
    """Every pin that stands, or the one of a model."""
    models = sorted({entry.body["model"] for entry in project.ledger.entries(*pins.PIN_KINDS)} if model is None else {model})
    return [as_json(pin) for name in models if (pin := pins.standing(project.ledger, name)) is not None]


def as_json(pin: pins.Pin) -> dict[str, Any]:
    entry = pin.entry
    facts = {"model": entry.body["model"], "pin": pin.digest, "record": entry.sequence, "by": entry.actor, "at": entry.time, "reason": entry.body["reason"]}
    return facts | {"signers": sorted(pin.signers or ()), "policy_sha256": pin.policy.sha256, "dials": dials_of(pin.policy)}


def show(rows: list[dict[str, Any]], model: str | None) -> str:
    """Every pin with its dials, and what a recipe may do with each."""
    if not rows:
        return f"nothing is pinned{f' for {model}' if model else ''}; a recipe's own policy is all that counts"
    lines = []
    for row in rows:
        who = (
            f"changed by a signature of {', '.join(row['signers'])}" if row["signers"] else "changed by whoever may write here: it asks for no signed approvals"
        )
        lines += [f"{row['model']}: pinned by {row['by']} at {row['at']} (record {row['record']}): {row['reason']}", f"  {who}"]
        lines += [f"  {dial:<30} {value!s:<24} a recipe: {DIRECTIONS[dial][1]}" for dial, value in row["dials"].items() if value is not None]
    return "\n".join(lines)


def _check_name(model: str) -> None:
    """Raises ``InputError`` for what no registered model can be called."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(Slug).validate_python(model)
    except ValidationError:
        raise InputError(f"a registered model has a name of at most 80 small letters, digits, and _ . -, got {model[:80]!r}") from None
