"""What people say about a plan: approve, reject; and whether what they said lets it go on.

An approval names the plan by its digest, in full. It holds for that plan alone, for a time, and once, because a plan is carried out once. A name is not a
proof; where the plan's rule knows a person's public key, only a signature counts.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from recompress.errors import ApprovalPending, GateRefused, InputError, IntegrityError
from recompress.integrity.signing import check_signature, key_id, public_pem, read_public_key, sign
from recompress.ledger import Entry, Ledger
from recompress.ledger.store import rfc3339
from recompress.promotion.decisions import named, waits_until
from recompress.promotion.states import Progress, progress_of, step
from recompress.records import PromotionPlan

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PURPOSE = "approval"
SKEW = timedelta(minutes=5)
"""So far may the clocks of two machines lie apart."""
STEERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's controls that let text be shown in another order than it stands in."""


def approve(ledger: Ledger, digest: str, *, actor: str, key: Ed25519PrivateKey | None = None) -> Entry:
    """Let a plan go on. ``digest`` names it in full; the approval holds for this plan, once, and for a time.

    Raises ``InputError`` for a digest that no waiting plan has, ``GateRefused`` for an author who may not, or a plan that waits no longer, and
    ``IntegrityError`` for a key that is not the approver's.
    """
    ledger.verify()
    progress = open_plan(ledger, digest)
    plan, rule = progress.plan, progress.plan.approval
    if not rule.required:
        raise InputError(f"plan {digest[:12]}… asks for no approval; promote it")
    if progress.state == "approved":
        given = progress.latest("approval")
        raise GateRefused(f"plan {digest[:12]}… was approved by {given.actor if given else '?'} already; one approval is used once")
    if progress.state != "judged":
        raise GateRefused(f"plan {digest[:12]}… is {progress.state}, so nobody can approve it yet")
    _check_person(plan, actor)
    now = ledger.clock()
    _check_age(ledger, progress, now, actor=actor)
    expires = rfc3339(now + timedelta(hours=rule.expires_after_hours))
    claim = approval_claim(digest, actor, expires)
    body: dict[str, Any] = {"approver": actor, "expires": expires}
    if key is not None:
        body |= {"key": public_pem(key), "signature": sign(key, PURPOSE, claim)}
    _check_signature(plan, claim, body)
    step(ledger, progress, "approval", body, actor=actor)
    entry = progress_of(ledger, digest).latest("approval")
    assert entry is not None
    return entry


def reject(ledger: Ledger, digest: str, *, actor: str, reason: str) -> Entry:
    """Stop a plan for good. Anybody may. Raises ``InputError`` without a reason, or for a digest that no open plan has."""
    reason = check_reason(reason, "a rejection needs a reason: whoever made the candidate will read it")
    ledger.verify()
    progress = step(ledger, open_plan(ledger, digest), "rejection", {"reason": reason}, actor=actor)
    return progress.entries[-1]


def check_reason(reason: str, needed: str) -> str:
    """A reason as it is recorded. Raises ``InputError`` (``needed``) for an empty one, and for characters that steer a terminal: the reason of a rollback stands
    in the plan that people approve, and must not paint another plan over it."""
    if not reason.strip():
        raise InputError(needed)
    for char in reason.strip():
        if (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t") or unicodedata.bidirectional(char) in STEERING:
            raise InputError(f"a reason is text for people; it holds {char!r}, which steers how a terminal shows it; leave that out")
    return reason.strip()


def clear(ledger: Ledger, progress: Progress, *, actor: str) -> Progress:
    """The plan as approved, or the reason why it is not. Raises ``ApprovalPending``, ``GateRefused`` and ``IntegrityError``; an expiry is recorded."""
    plan = progress.plan
    if progress.state == "judged" and not plan.approval.required:
        return step(ledger, progress, "promotion-approved", {"rule": "none asked for"}, actor=actor)
    if progress.state == "judged":
        _check_age(ledger, progress, ledger.clock(), actor=actor)
        raise ApprovalPending(f"{plan.candidate} waits for an approval to become champion of {plan.model}; recompress approve {progress.digest}")
    if progress.state != "approved":
        raise GateRefused(f"plan {progress.digest[:12]}… is {progress.state}{_why(progress)}")
    if plan.approval.required:
        _check_approval(ledger, progress, actor=actor)
    return progress


def _check_approval(ledger: Ledger, progress: Progress, *, actor: str) -> None:
    """An approval is checked again where it is used: records may have been written by other means than ``approve``."""
    entry = progress.latest("approval")
    if entry is None:
        raise IntegrityError(f"plan {progress.digest[:12]}… is approved, but the ledger holds no approval of it")
    body = entry.body
    now = ledger.clock()
    if now < datetime.fromisoformat(entry.time) - SKEW:
        raise GateRefused(f"the approval of plan {progress.digest[:12]}… is dated {entry.time}, which is still to come; set the clocks right")
    if now >= datetime.fromisoformat(body["expires"]):
        step(ledger, progress, "promotion-expired", {"expires": body["expires"]}, actor=actor)
        raise GateRefused(f"the approval of plan {progress.digest[:12]}… by {entry.actor} expired at {body['expires']}; run again, and ask again")
    if body.get("approver") != entry.actor:
        raise IntegrityError(f"ledger record {entry.sequence}: the approval of {entry.actor} names {body.get('approver')!r} as approver")
    _check_person(progress.plan, entry.actor)
    _check_signature(progress.plan, approval_claim(progress.digest, entry.actor, body["expires"]), body)


def _check_person(plan: PromotionPlan, actor: str) -> None:
    if plan.approval.not_the_author and person(actor) == person(plan.author):
        raise GateRefused(f"{actor} made plan {plan.digest[:12]}…, and its rule asks for the approval of somebody else")


def _check_age(ledger: Ledger, progress: Progress, now: datetime, *, actor: str) -> None:
    hours = progress.plan.approval.expires_after_hours
    since = progress.entries[0].time
    if now >= waits_until(progress):
        step(ledger, progress, "promotion-expired", {"waited_since": since}, actor=actor)
        raise GateRefused(f"plan {progress.digest[:12]}… has waited since {since}, longer than {hours:g} hours, and expired; run again, and ask again")


def _check_signature(plan: PromotionPlan, claim: dict[str, str], body: dict[str, Any]) -> None:
    rule, approver = plan.approval, claim["approver"]
    known = rule.signers.get(approver)
    if known is None and rule.signed:
        raise GateRefused(f"{approver} may not approve plan {plan.digest[:12]}…; signatures of {', '.join(sorted(rule.signers)) or 'nobody'} are known")
    if "signature" not in body:
        if known is not None or rule.signed:
            raise GateRefused(f"an approval by {approver} must be signed; give the private key")
        return
    try:
        given = read_public_key(body["key"])
        key = read_public_key(known) if known is not None else given
    except InputError as error:  # nobody typed it in just now: it stands in the ledger
        raise IntegrityError(f"the ledger names a key for the approval of {approver} that is none: {error}") from None
    if known is not None and public_pem(key) != body["key"]:
        raise IntegrityError(f"the approval is signed with the key {key_id(given)[:12]}…, which is not {approver}'s ({key_id(key)[:12]}…)")
    check_signature(key, PURPOSE, claim, body["signature"])


def open_plan(ledger: Ledger, digest: str) -> Progress:
    """A plan that still can be decided. Raises ``InputError`` that names the nearest digest, and ``GateRefused`` when the plan has ended."""
    progress = named(ledger, digest)
    if progress.ended:
        raise GateRefused(f"plan {digest[:12]}… is {progress.state}{_why(progress)}; nothing is left to decide")
    return progress


def _why(progress: Progress) -> str:
    last = progress.entries[-1]
    reason = last.body.get("reason") or last.body.get("detail")
    return f" by {last.actor} at {last.time}" + (f": {reason}" if reason else "")


def approval_claim(plan: str, approver: str, expires: str) -> dict[str, str]:
    """What an approval of the plan with this digest signs."""
    return {"decision": "approved", "plan": plan, "approver": approver, "expires": expires}


def person(name: str) -> str:
    """One spelling for all of a name's: whoever approves as " Ada" is the ada who proposed."""
    return unicodedata.normalize("NFKC", name).strip().casefold()
