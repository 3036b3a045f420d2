"""Pins: what every promotion of a registered model needs at least, whatever the policy of a recipe says.

A pin is a whole policy in the ledger. A recipe may be stricter in any dial and laxer in none (``recompress.strictness``). It is held three times: before a run
begins, when its plan is carried out (the plan names the pin, and another one by then is a refusal), and in every audit and bundle.

Who approves decides about pins as well. Where the standing pin asks for signed approvals it names the public keys that count, and nothing but a signature by one of
them replaces or lifts it: whoever can write the ledger, but has no such key, cannot loosen it. So people who come later are let in by pinning again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from recompress.errors import InputError
from recompress.integrity.digest import sha256_json
from recompress.ledger import Entry, Ledger, LedgerBroken, Writer
from recompress.policy import Approval, Policy
from recompress.promotion.approvals import check_reason
from recompress.promotion.signed import check_decision, with_signature
from recompress.records import ApprovalRule, PromotionPlan
from recompress.strictness import Laxer, laxer_dials

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PIN_KINDS = PINNED, UNPINNED = "policy-pinned", "policy-unpinned"
FACT = "pin"
"""The fact of a plan that names the pin it was made under: the hash of the pin's record."""


class Pin(NamedTuple):
    """A pin that stands."""

    entry: Entry
    policy: Policy

    @property
    def digest(self) -> str:
        """Names this pin and no other: the hash of its record."""
        return self.entry.hash

    @property
    def signers(self) -> Mapping[str, str] | None:
        """The public keys of those who may change it; ``None`` where a name is enough."""
        keys: dict[str, str] = self.entry.body["signers"]
        return keys if self.policy.approval.signed else None


def standing_in(entries: Iterable[Entry], model: str) -> Pin | None:
    """The pin of a model after these records. Every pin before it is checked as well: each must have been changed by those who might.

    Raises ``LedgerBroken`` that names the first record that nobody who may decide has written.
    """
    pin: Pin | None = None
    for entry in entries:
        if entry.kind in PIN_KINDS and entry.body["model"] == model:
            pin = _next(pin, entry)
    return pin


def standing(ledger: Ledger | Writer, model: str) -> Pin | None:
    """The pin of a model now. Raises ``LedgerBroken`` as ``standing_in`` does."""
    return standing_in(ledger.entries(*PIN_KINDS, model=model), model)


def _next(pin: Pin | None, entry: Entry) -> Pin | None:
    body, before = entry.body, pin.digest if pin else ""
    if body["before"] != before:
        raise LedgerBroken(entry.sequence, f"{entry.kind} follows on pin {body['before'][:12] or 'none'}, but {before[:12] or 'none'} stood")
    after = None if entry.kind == UNPINNED else Pin(entry, policy_in(entry))
    if pin is None and after is None:
        raise LedgerBroken(entry.sequence, f"it lifts a pin of {body['model']}, and none stood")
    check_decision(entry, pin.signers if pin and pin.signers is not None else after.signers if after else None)
    return after


def policy_in(entry: Entry) -> Policy:
    """The policy that a record holds. Raises ``LedgerBroken`` when it has another digest than the record says, or says more than this version knows."""
    values = entry.body["policy"]
    if sha256_json(values) != entry.body["policy_sha256"]:
        raise LedgerBroken(entry.sequence, "the policy inside does not have the digest that it names")
    if values.get("approval", {}).get("mode") == "none":  # defaults that a file may not say
        values = {**values, "approval": {"mode": "none"}}
    try:
        return Policy.model_validate(values)
    except ValidationError:
        raise LedgerBroken(entry.sequence, "the policy inside is none that this version knows; use the version that wrote it") from None


def pin(ledger: Ledger, model: str, policy: Policy, *, actor: str, reason: str, signers: Mapping[str, str], key: Ed25519PrivateKey | None = None) -> Entry:
    """Pin a policy for a registered model. ``signers`` are the public keys of the approvers of today.

    Raises ``InputError`` without a reason, or where nobody could sign, and ``GateRefused`` for somebody who may not.
    """
    body: dict[str, Any] = {
        "policy": policy.model_dump(mode="json"),
        "policy_sha256": policy.sha256,
        "signers": dict(signers) if policy.approval.signed else {},
    }
    if policy.approval.signed and not signers:
        raise InputError("the policy asks for signed approvals, but approvers/ holds no public key; add one for each person: approvers/NAME.pem")
    return _decide(ledger, PINNED, model, body, actor=actor, reason=reason, signers=signers, key=key, signed=policy.approval.signed)


def unpin(ledger: Ledger, model: str, *, actor: str, reason: str, signers: Mapping[str, str], key: Ed25519PrivateKey | None = None) -> Entry:
    """Lift the pin of a model: from then on a recipe's own policy is all. Raises as ``pin`` does, and ``InputError`` where none stands."""
    if standing(ledger, model) is None:
        raise InputError(f"nothing is pinned for {model!r}; recompress policy pinned shows what is")
    return _decide(ledger, UNPINNED, model, {}, actor=actor, reason=reason, signers=signers, key=key, signed=False)


def _decide(
    ledger: Ledger, kind: str, model: str, body: dict[str, Any], *, actor: str, reason: str, signers: Mapping[str, str], key: Any, signed: bool
) -> Entry:
    """Under the lock of promotions: no plan is carried out between the check of its pin and its end."""
    reason = check_reason(reason, "a pin needs a reason: whoever is refused by it will read it")
    ledger.verify()
    with ledger.lock(), ledger.transaction() as writer:
        before = standing(writer, model)
        body = {"model": model, "person": actor, "reason": reason, "before": before.digest if before else "", **body}
        who = who_may(before, signers, signed=signed)
        return writer.append(kind, with_signature(kind, body, key, who, about=f"what is pinned for {model}"), actor=actor)


def who_may(before: Pin | None, signers: Mapping[str, str], *, signed: bool) -> Mapping[str, str] | None:
    """Who may decide: those whom the standing pin names, as long as their key is an approver's today; where none stands, today's approvers, if ``signed``."""
    if before is not None and before.signers is not None:
        return {name: pem for name, pem in before.signers.items() if signers.get(name) == pem}
    return signers if signed else None


def laxer_than_pinned(pin: Pin | None, policy: Policy) -> list[Laxer]:
    """Where a policy asks for less than what is pinned."""
    return laxer_dials(policy, pin.policy) if pin else []


def hold(ledger: Ledger | Writer, plan: PromotionPlan) -> tuple[str, str] | None:
    """Whether a plan may be carried out under the pin that stands now: ``None``, or the name of the refusal and its line."""
    pin = standing(ledger, plan.model)
    if (pin.digest if pin else "") != plan.facts.get(FACT, ""):
        was, now = plan.facts.get(FACT, "")[:12] or "none", pin.digest[:12] if pin else "none"
        return "pin-changed", f"the plan was made under pin {was} of {plan.model}, and {now} stands by now; run the recipe again"
    if pin is None:
        return None
    recorded = ledger.last("policy-recorded", policy_sha256=plan.policy_sha256) if plan.policy_sha256 else None
    policy = policy_in(recorded) if recorded is not None and "policy" in recorded.body else None
    for trouble in troubles(pin, plan, policy):
        return "laxer-than-pinned", trouble
    return None


def troubles(pin: Pin, plan: PromotionPlan, policy: Policy | None) -> Iterator[str]:
    """Where a plan asks for less than its pin. A rollback was judged once already: of the pin it must keep the rule for approvals."""
    if plan.kind == "promotion" and policy is None:
        yield f"the policy {str(plan.policy_sha256)[:12]}… of the plan is not in the ledger, so it cannot be held against what is pinned for {plan.model}"
    if plan.kind == "promotion" and policy is not None:
        yield from (f"{laxer}, for {plan.model}" for laxer in laxer_than_pinned(pin, policy))
    if not keeps(plan.approval, pin.policy.approval):
        yield f"the plan's rule for approvals is laxer than the one that is pinned for {plan.model}"


def keeps(rule: ApprovalRule, pinned: Approval) -> bool:
    """Whether a plan's rule asks for at least what is pinned."""
    if pinned.mode == "none":
        return True
    hours = rule.expires_after_hours <= pinned.expires_after_hours
    return rule.required and hours and (rule.signed or not pinned.signed) and (rule.not_the_author or not pinned.not_the_author)


def tightened(rule: ApprovalRule, pin: Pin | None) -> ApprovalRule:
    """A rule for approvals, made as strict as the pinned one where it is laxer. Keys are not filled in."""
    if pin is None or pin.policy.approval.mode == "none":
        return rule
    pinned = pin.policy.approval
    hours = min(rule.expires_after_hours, pinned.expires_after_hours) if rule.required else pinned.expires_after_hours
    changes = {"required": True, "expires_after_hours": hours, "not_the_author": rule.not_the_author or pinned.not_the_author}
    return rule.model_copy(update=changes | {"signed": rule.signed or pinned.signed})


def check_recipe(pin: Pin | None, policy: Policy, model: str) -> None:
    """Before any work. Raises ``InputError`` that names every dial that is laxer than pinned, with both values."""
    laxer = laxer_than_pinned(pin, policy)
    if laxer and pin is not None:
        who = f"{pin.entry.actor} pinned it in ledger record {pin.entry.sequence}: {pin.entry.body['reason']}"
        raise InputError(f"the policy asks for less than what is pinned for {model}: {'; '.join(map(str, laxer))}. {who}; recompress policy pinned {model}")


def kept_to_pin(chain: Iterable[Entry], plan: PromotionPlan, intent: int) -> Iterator[str]:
    """Where a plan that was carried out, with the intent in record ``intent``, did not keep to the pin of its time. ``chain`` is a ledger that verifies."""
    before = [entry for entry in chain if entry.sequence < intent and entry.kind in (*PIN_KINDS, "policy-recorded")]
    pin, carried = standing_in(before, plan.model), plan.facts.get(FACT, "")
    if carried != (pin.digest if pin else ""):
        yield f"its plan names pin {carried[:12] or 'none'}, and {pin.digest[:12] if pin else 'none'} stood when it was carried out"
    elif pin is not None:
        recorded = [entry for entry in before if entry.kind == "policy-recorded" and entry.body["policy_sha256"] == plan.policy_sha256]
        yield from troubles(pin, plan, policy_in(recorded[-1]) if recorded and "policy" in recorded[-1].body else None)
