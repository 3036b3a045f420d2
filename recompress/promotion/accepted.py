"""Which baseline was accepted last, and by whom a weaker one was let in: both follow from the ledger.

The last accepted baseline is the one behind the promotion by which the present champion was made. A person may let another one count although it is worse: a
record that names both, with the reason, signed where approvals of this model must be signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recompress.errors import InputError
from recompress.ledger import Entry, Ledger, LedgerBroken
from recompress.promotion.approvals import check_reason
from recompress.promotion.pins import PIN_KINDS, standing, standing_in, who_may
from recompress.promotion.signed import check_decision, counts, with_signature
from recompress.promotion.states import progress_of
from recompress.records import PromotionPlan

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ACCEPTED = "baseline-accepted"


def plan_behind(ledger: Ledger, model: str, version: str) -> PromotionPlan | None:
    """The plan of the promotion by which ``version`` was made, or, where nothing is champion (``""``), of the last one. ``None`` before any promotion."""
    of_version = {"version": version} if version else {}
    for entry in reversed(ledger.entries("promotion-committed", model=model, **of_version)):
        plan = progress_of(ledger, entry.body["plan"]).plan
        if plan.kind == "promotion":
            return plan
    return None


def accept_baseline(
    ledger: Ledger,
    model: str,
    baseline: str,
    accepted: str,
    *,
    actor: str,
    reason: str,
    signers: Mapping[str, str],
    signed: bool,
    key: Ed25519PrivateKey | None = None,
) -> Entry:
    """Let ``baseline`` count beside ``accepted`` (digests of models). Raises ``InputError`` without a reason or for digests that are none, and ``GateRefused`` for
    somebody who may not: where approvals are ``signed``, by the policy or by what is pinned, this is too."""
    reason = check_reason(reason, "to accept a weaker baseline needs a reason: whoever trusts the model will want to know")
    for digest in (baseline, accepted):
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InputError(f"a baseline is named by the 64 hex digits of its digest, as the refusal prints it, got {digest[:80]!r}")
    ledger.verify()
    with ledger.transaction() as writer:
        pin = standing(writer, model)
        body = {
            "model": model,
            "person": actor,
            "reason": reason,
            "before": pin.digest if pin else "",
            "baseline_sha256": baseline,
            "accepted_sha256": accepted,
        }
        who = who_may(pin, signers, signed=signed)
        return writer.append(ACCEPTED, with_signature(ACCEPTED, body, key, who, about=f"the baseline of {model}"), actor=actor)


def accepted_by(ledger: Ledger, model: str, baseline: str, accepted: str, *, signers: Mapping[str, str], signed: bool) -> str:
    """Who let ``baseline`` count beside ``accepted``, for people; empty when nobody did whose word counts by the rule of today: a rule may have become stricter
    since, and then somebody has to accept it again. Raises ``LedgerBroken`` for a record by somebody who might not by the rule of its own time."""
    who = who_may(standing(ledger, model), signers, signed=signed)
    for entry in reversed(ledger.entries(ACCEPTED, model=model, baseline_sha256=baseline, accepted_sha256=accepted)):
        _check_of_its_time(ledger, entry, model)
        if counts(entry, who):
            return f"{entry.actor} accepted it in ledger record {entry.sequence}: {entry.body['reason']}"
    return ""


def _check_of_its_time(ledger: Ledger, entry: Entry, model: str) -> None:
    then = standing_in((pin for pin in ledger.entries(*PIN_KINDS, model=model) if pin.sequence < entry.sequence), model)
    if entry.body["before"] != (then.digest if then else ""):
        raise LedgerBroken(entry.sequence, f"it was decided under pin {entry.body['before'][:12] or 'none'}, and {then.digest[:12] if then else 'none'} stood")
    check_decision(entry, then.signers if then else None)
