"""Everything besides the loss: bytes, speed, memory, the budget over all promotions, and the first promotion of all."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from recompress.gate.reasons import passed, refused
from recompress.gate.rounds import LIMITS, check_rounds, rule_of
from recompress.policy import Policy
from recompress.records import Evaluation, Finding, Loss

SIZE, SPEED = "size_bytes", "latency_ratio"
MISSING = {SIZE: "size-missing", **dict.fromkeys(("peak_memory_bytes", "steady_memory_bytes"), "memory-missing")}
"""The reason where a figure is not there; of all others, which are about time, it is ``latency-missing``."""


def check_limits(policy: Policy, candidate: Evaluation, baseline: Evaluation | None, *, alpha: float) -> Iterator[Finding]:
    """What the policy limits, and whatever its rule for choosing needs to know. ``alpha`` is the error rate of every bound over rounds."""
    limits = policy.limits
    if limits is not None and limits.size_bytes is not None:
        yield _value("size", candidate, SIZE) or _at_most("size", "size-too-large", candidate.metrics[SIZE], float(limits.size_bytes), "bytes on disk")
    if limits is not None and limits.times_smaller is not None:
        yield _times_smaller(candidate, baseline, limits.times_smaller)
    for dial in (name for name in LIMITS if limits is not None and getattr(limits, name) is not None):
        rule = rule_of(limits, dial)
        missing = _value(rule.check, candidate, rule.key)
        yield from [missing] if missing else check_rounds(limits, candidate, dial, alpha=alpha)
    needed = {"smallest": SIZE, "fastest": SPEED}.get(policy.choose)
    trouble = _value("choose", candidate, needed) if needed else None
    if trouble:
        yield trouble


def _times_smaller(candidate: Evaluation, baseline: Evaluation | None, least: float) -> Finding:
    check = "times-smaller"
    if baseline is None:
        return refused(check, "missing-baseline", "there is no baseline to be smaller than")
    trouble = _value(check, candidate, SIZE) or _value(check, baseline, SIZE)
    return trouble or _at_least(check, "size-too-large", baseline.metrics[SIZE] / candidate.metrics[SIZE], least, "times smaller than the baseline")


def _value(check: str, evaluation: Evaluation, key: str) -> Finding | None:
    """A refusal when a measured value is missing, not finite, or not above zero."""
    value = evaluation.metrics.get(key)
    if value is None:
        return refused(check, MISSING.get(key, "latency-missing"), f"{key} of {evaluation.model} was not measured")
    if not isfinite(value):
        return refused(check, "not-a-number", f"{key} of {evaluation.model} is {value}", measured=value)
    if value <= 0:
        return refused(check, "impossible-value", f"{key} of {evaluation.model} is {value:g}; it is above 0 for any model", measured=value)
    return None


def _at_most(check: str, reason: str, value: float, limit: float, unit: str) -> Finding:
    detail = f"{value:,.0f} {unit}, {limit:,.0f} allowed"
    return passed(check, detail, measured=value, limit=limit) if value <= limit else refused(check, reason, detail, measured=value, limit=limit)


def _at_least(check: str, reason: str, value: float, limit: float, unit: str) -> Finding:
    detail = f"{value:.2f} {unit}, {limit:.2f} asked for"
    return passed(check, detail, measured=value, limit=limit) if value >= limit else refused(check, reason, detail, measured=value, limit=limit)


def check_first_promotion(policy: Policy) -> Finding:
    check = "first-promotion"
    if policy.first_promotion == "allowed":
        return passed(check, "there is no champion yet, and the policy allows a first promotion")
    return refused(check, "first-promotion-not-allowed", "there is no champion to compare with; first_promotion: allowed in the policy lets the first one in")


def check_spent(spent_loss: float | None) -> Finding | None:
    """A refusal when what earlier promotions have lost is not a plain number from 0 on."""
    check = "loss-budget"
    if spent_loss is None:
        return refused(check, "spent-loss-missing", "what earlier promotions have lost is not known; the ledger holds it in the last promotion's verdict")
    if not isfinite(spent_loss):
        return refused(check, "not-a-number", f"earlier promotions are said to have lost {spent_loss}", measured=spent_loss)
    if spent_loss < 0:
        return refused(
            check, "impossible-value", f"earlier promotions are said to have lost {spent_loss:g}; gains are not saved up below 0", measured=spent_loss
        )
    return None


def cost_of(loss: Loss, *, same_model: bool) -> float:
    """What a promotion is charged: the upper bound of its loss against the champion, because what its sample could not rule out may be lost. The champion
    itself, judged again, loses nothing."""
    return 0.0 if same_model else loss.upper


def check_budget(policy: Policy, cost: float, spent_loss: float) -> Finding:
    check, total = "loss-budget", spent_loss + cost
    detail = f"earlier promotions may have lost {spent_loss:.4f}, this one {cost:.4f}; the budget is {policy.loss_budget:.4f}"
    if total <= policy.loss_budget:
        return passed(check, detail, measured=total, limit=policy.loss_budget)
    way_out = "a gain restores it, or a person sets a new budget"
    return refused(check, "loss-budget-spent", f"{detail}; {way_out}", measured=total, limit=policy.loss_budget)


def charge(spent_loss: float, cost: float) -> float:
    """What has been spent after this promotion. A proven gain gives back, down to nothing spent."""
    return max(0.0, spent_loss + cost)
