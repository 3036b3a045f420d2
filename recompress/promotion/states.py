"""The states of a promotion, as a table, and the reading of a plan's records along it.

    proposed → judged → approved → intent → alias-moved → verified → committed
    and from there: refused, rejected, expired, rolled-back

No state is kept anywhere: it follows from the records, and a record that the table does not allow is never written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from recompress.errors import GateRefused, InputError, IntegrityError
from recompress.ledger import Entry, Ledger, LedgerBroken, Writer
from recompress.records import PromotionPlan

STEPS: dict[str, dict[str, str]] = {
    # state          kind of record              next state
    "proposed": {
        "promotion-judged": "judged",
        "rejection": "rejected",
        "promotion-refused": "refused",
    },
    "judged": {
        "approval": "approved",
        "promotion-approved": "approved",
        "rejection": "rejected",
        "promotion-refused": "refused",
        "promotion-expired": "expired",
    },
    "approved": {
        "promotion-intent": "intent",
        "rejection": "rejected",
        "promotion-refused": "refused",
        "promotion-expired": "expired",
    },
    "intent": {
        "promotion-alias-moved": "alias-moved",
        "promotion-withdrawn": "approved",
        "promotion-refused": "refused",
    },
    "alias-moved": {
        "promotion-verified": "verified",
        "promotion-undo": "undoing",
        "promotion-refused": "refused",
    },
    "verified": {
        "promotion-committed": "committed",
        "promotion-undo": "undoing",
        "promotion-refused": "refused",
    },
    "undoing": {
        "promotion-rolled-back": "rolled-back",
        "promotion-refused": "refused",
    },
    "committed": {},
    "refused": {},
    "rejected": {},
    "expired": {},
    "rolled-back": {},
}
OPENERS = ("promotion-proposed", "rollback")
PLAN_KINDS = (*OPENERS, *sorted({kind for steps in STEPS.values() for kind in steps}))
UNFINISHED = ("intent", "alias-moved", "verified", "undoing")
"""States that only a process which was cut off leaves behind."""

REASONS = {
    "verdict-refused": "the gate did not pass the candidate",
    "verdict-mismatch": "the verdict speaks of another candidate, champion or policy than the plan",
    "champion-changed": "the champion is not the one that the verdict was made against",
    "alias-moved-outside": "somebody moved the alias without the ledger",
    "pin-changed": "what is pinned for the model is not what it was when the plan was made",
    "laxer-than-pinned": "the plan asks for less than what is pinned for the model",
    "files-refused": "a file is missing, changed, cut short, or of a kind that is not accepted",
    "version-missing": "the version is not in the registry any more",
}
"""Why a plan is refused, by name."""


class PromotionRefused(GateRefused):
    """A plan was refused, and the ledger says so. ``reason`` is a name of ``REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the promotion was refused ({reason}): {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Progress:
    """How far a plan has come, by its records."""

    plan: PromotionPlan
    state: str
    entries: tuple[Entry, ...]

    @cached_property
    def digest(self) -> str:
        return self.plan.digest

    @property
    def ended(self) -> bool:
        return not STEPS[self.state]

    def latest(self, *kinds: str) -> Entry | None:
        """The plan's latest record of these kinds."""
        return next((entry for entry in reversed(self.entries) if entry.kind in kinds), None)

    def said(self, kind: str) -> dict[str, Any]:
        """The body of the plan's latest record of a kind. Raises ``IntegrityError`` when it has none."""
        entry = self.latest(kind)
        if entry is None:
            raise IntegrityError(f"plan {self.digest[:12]}… is {self.state}, but the ledger holds no {kind} record of it")
        return entry.body


def plan_in(entry: Entry) -> PromotionPlan:
    """The plan that a record opens. Raises ``LedgerBroken`` when it is not the one whose digest the record names."""
    try:
        plan = PromotionPlan.model_validate(entry.body["content"])
    except ValidationError:  # all that the record must say is there, so it says more
        raise LedgerBroken(entry.sequence, "the plan inside says more than this version knows; use the version that wrote it") from None
    if plan.digest != entry.body["plan"]:
        raise LedgerBroken(entry.sequence, f"the plan inside does not have the digest {entry.body['plan'][:12]}…")
    return plan


def follow(entries: Iterable[Entry]) -> Progress | None:
    """The progress of one plan from its records, in order. Raises ``IntegrityError`` for a record that the table does not allow."""
    plan: PromotionPlan | None = None
    state = ""
    records: list[Entry] = []
    for entry in entries:
        if plan is None and entry.kind in OPENERS:
            plan, state = plan_in(entry), "proposed"
        elif entry.kind in STEPS.get(state, {}):
            state = STEPS[state][entry.kind]
        else:
            raise LedgerBroken(entry.sequence, f"{entry.kind} cannot follow on {state or 'nothing'}")
        records.append(entry)
    return Progress(plan, state, tuple(records)) if plan is not None else None


def progress_of(ledger: Ledger | Writer, digest: str) -> Progress:
    """How far the plan with this digest has come. Raises ``InputError`` when there is none."""
    progress = follow(ledger.entries(*PLAN_KINDS, plan=digest))
    if progress is None:
        raise InputError(f"no plan has the digest {digest[:80]!r}; it is 64 hex digits, and every one of them counts")
    return progress


def step(ledger: Ledger, progress: Progress, kind: str, body: dict[str, Any], *, actor: str, once: bool = False) -> Progress:
    """Write a plan's next record, if the table allows it from where the plan stands *now*, and give the new progress.

    With ``once`` nothing is written when somebody else, who does the same work, has written that record in the meantime.
    """
    with ledger.transaction() as writer:
        now = progress_of(writer, progress.digest)
        if once and now.latest(kind) is not None:
            return now
        if kind not in STEPS[now.state]:
            raise GateRefused(f"plan {progress.digest[:12]}… is {now.state} by now; {kind} cannot follow on that")
        entry = writer.append(kind, {"plan": progress.digest, "model": progress.plan.model, **body}, actor=actor)
    return Progress(now.plan, STEPS[now.state][kind], (*now.entries, entry))


def refuse(ledger: Ledger, progress: Progress, reason: str, detail: str, *, actor: str) -> PromotionRefused:
    """Record a refusal and give the error to raise. Raises ``KeyError`` for a reason that ``REASONS`` does not know."""
    step(ledger, progress, "promotion-refused", {"reason": reason, "meaning": REASONS[reason], "detail": detail}, actor=actor)
    return PromotionRefused(reason, detail)
