"""Which baseline was accepted last, and by whom a weaker one was let in: both follow from the ledger.

The last accepted baseline is the one behind the promotion by which the present champion was made. A person may let another one count although it is worse: a
record that names both, with the reason, signed where approvals of this model must be signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recompress.errors import InputError
from recompress.ledger import Entry, Ledger
from recompress.promotion.approvals import check_reason
from recompress.promotion.pins import standing, who_may
from recompress.promotion.signed import check_decision, with_signature
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
    """Who let ``baseline`` count beside ``accepted``, for people; empty when nobody did. Raises ``LedgerBroken`` for a record by somebody who might not."""
    entry = ledger.last(ACCEPTED, model=model, baseline_sha256=baseline, accepted_sha256=accepted)
    if entry is None:
        return ""
    check_decision(entry, who_may(standing(ledger, model), signers, signed=signed))
    return f"{entry.actor} accepted it in ledger record {entry.sequence}: {entry.body['reason']}"
