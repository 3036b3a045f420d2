"""Was a promotion approved as its plan asks? Read from the plan's records alone, afterwards: by whoever audits the ledger, and by whoever gets a bundle.

What is asked of an approval when it is used stands in ``approvals.py``. Records may have been written by other means, so it is asked again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from recompress.errors import RecompressError
from recompress.integrity.signing import check_signature, read_public_key
from recompress.ledger import Entry
from recompress.promotion.approvals import PURPOSE, SKEW, approval_claim, person
from recompress.records import ApprovalRule


def approval_trouble(rule: ApprovalRule, author: str, digest: str, entries: Sequence[Entry]) -> str | None:
    """What is wrong with the approval of a plan that was carried out, in one line; ``None`` where nothing is. ``entries`` are the plan's records, in order."""
    if not rule.required:
        return None
    given = next((entry for entry in reversed(entries) if entry.kind == "approval"), None)
    if given is None or given.body.get("approver") != given.actor:
        return "the plan asks for an approval, and there is none by the person that it names"
    if rule.not_the_author and person(given.actor) == person(author):
        return f"{given.actor} approved what {author} proposed, and the rule asks for somebody else"
    return _unsigned(rule, digest, given) or _out_of_time(rule, given, entries)


def _unsigned(rule: ApprovalRule, digest: str, given: Entry) -> str | None:
    known = rule.signers.get(given.actor)
    if known is None and not rule.signed:
        return None
    try:
        claim = approval_claim(digest, given.actor, str(given.body["expires"]))
        check_signature(read_public_key(str(known)), PURPOSE, claim, str(given.body["signature"]))
    except (RecompressError, KeyError):
        return f"the approval by {given.actor} does not carry the signature that the plan's rule asks for"
    return None


def _out_of_time(rule: ApprovalRule, given: Entry, entries: Sequence[Entry]) -> str | None:
    """An approval counts for so many hours, a plan waits for one as long, and every beginning of the promotion lies before its end."""
    hours, expires = timedelta(hours=rule.expires_after_hours), str(given.body.get("expires"))
    end, approved = datetime.fromisoformat(expires), datetime.fromisoformat(given.time)
    if end > approved + hours + SKEW:
        return f"the approval by {given.actor} holds until {expires}, longer than the {rule.expires_after_hours:g} hours that the plan's rule gives"
    if approved > datetime.fromisoformat(entries[0].time) + hours + SKEW:
        return f"the approval by {given.actor} came at {given.time}, when the plan had waited longer than the {rule.expires_after_hours:g} hours of its rule"
    late = next((e.time for e in entries if e.kind == "promotion-intent" and datetime.fromisoformat(e.time) > end + SKEW), None)
    return f"the approval by {given.actor} ran out at {expires}, and the promotion began at {late}" if late else None
