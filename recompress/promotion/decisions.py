"""What is proposed, and what the gate says of it. None of it touches the registry."""

from __future__ import annotations

import difflib
from datetime import datetime, timedelta

from recompress.errors import GateRefused, InputError
from recompress.ledger import Ledger
from recompress.promotion.states import OPENERS, PLAN_KINDS, Progress, follow, progress_of, refuse, step
from recompress.records import PromotionPlan, Verdict

REOPENED = ("refused", "expired", "rolled-back")
"""Ends after which the same plan may be tried again without anybody's word."""


def propose(ledger: Ledger, plan: PromotionPlan, *, again: bool = False) -> Progress:
    """Record a plan, or find it: the same plan is recorded once, however often a run is repeated.

    A plan that was refused, undone or has expired is opened again under a new digest. One that a person stopped or that was carried out is opened again only
    when ``again`` says so.
    """
    same = plan.expected is not None and plan.expected.model_sha256 == plan.model_sha256
    if plan.expected is not None and (plan.expected.version == plan.version if plan.kind == "rollback" else same):
        raise GateRefused(f"{plan.candidate} is champion of {plan.model} already, as version {plan.expected.version}; there is nothing to promote")
    if plan.approval.signed and not plan.approval.signers:
        raise InputError("approvals must be signed, but no approver's public key is known; add one before anything waits for it")
    alike = plan.model_copy(update={"attempt": 1}).digest
    with ledger.transaction() as writer:
        attempts = writer.entries(*OPENERS, alike=alike)
        if attempts:
            latest = follow(writer.entries(*PLAN_KINDS, plan=attempts[-1].body["plan"]))
            assert latest is not None
            if latest.state not in REOPENED and not (again and latest.ended):
                return latest
        plan = plan.model_copy(update={"attempt": len(attempts) + 1})
        body = {"plan": plan.digest, "alike": alike, "model": plan.model, "content": plan.as_json()}
        entry = writer.append("rollback" if plan.kind == "rollback" else "promotion-proposed", body, actor=plan.author)
    return Progress(plan, "proposed", (entry,))


def judge(ledger: Ledger, digest: str, verdict: Verdict, *, actor: str) -> Progress:
    """Hold the gate's verdict against the plan. Raises ``PromotionRefused`` when it did not pass or speaks of anything else. Judging twice is judging once."""
    progress = progress_of(ledger, digest)
    if progress.state != "proposed":
        return progress
    plan = progress.plan
    expected = plan.expected.model_sha256 if plan.expected else None
    pairs = {
        "verdict": (verdict.digest, plan.verdict_sha256),
        "candidate": (verdict.candidate_sha256, plan.model_sha256),
        "policy": (verdict.policy_sha256, plan.policy_sha256),
        "champion": (verdict.champion_sha256, expected),
    }
    for name, (judged, planned) in pairs.items():
        if judged != planned or (name == "champion" and plan.expected is not None and judged is None):
            raise refuse(
                ledger, progress, "verdict-mismatch", f"{name}: the verdict says {_short(judged)}, the plan {_short(planned)}; judge again", actor=actor
            )
    if not verdict.passed:
        raise refuse(ledger, progress, "verdict-refused", f"the gate said {', '.join(verdict.reasons)}", actor=actor)
    body = {"verdict": verdict.digest, "metric": verdict.metric, "score": verdict.score, "spent_loss_after": verdict.spent_loss_after}
    return step(ledger, progress, "promotion-judged", body, actor=actor, once=True)


def waiting(ledger: Ledger) -> list[Progress]:
    """Plans that wait for a person, oldest first. One that has waited too long is left out: nobody can approve it."""
    plans = [progress_of(ledger, entry.body["plan"]) for entry in ledger.entries(*OPENERS)]
    now = ledger.clock()
    return [progress for progress in plans if progress.state == "judged" and progress.plan.approval.required and now < waits_until(progress)]


def waits_until(progress: Progress) -> datetime:
    """When a plan that nobody approves expires."""
    return datetime.fromisoformat(progress.entries[0].time) + timedelta(hours=progress.plan.approval.expires_after_hours)


def named(ledger: Ledger, digest: str) -> Progress:
    """The plan that somebody names by its digest. Raises ``InputError`` that names the plan that is nearest to it, among those that have not ended."""
    if ledger.entries(*OPENERS, plan=digest):
        return progress_of(ledger, digest)
    opened = [progress_of(ledger, entry.body["plan"]) for entry in ledger.entries(*OPENERS)]
    going_on = [progress.digest for progress in opened if not progress.ended]
    near = difflib.get_close_matches(digest, going_on, n=1, cutoff=0.9)
    way_out = f"is {near[0]} meant? " if near else "" if going_on else "nothing waits for anybody now; "
    raise InputError(f"no plan has the digest {digest[:80]!r}; {way_out}`recompress approve` shows every plan that waits, and all 64 digits of one count")


def _short(digest: str | None) -> str:
    return f"{digest[:12]}…" if digest else "none"
