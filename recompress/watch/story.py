"""How a watch came to a promotion, from what it saw on: the lines that ``audit trace`` shows."""

from __future__ import annotations

from collections.abc import Iterable

from recompress.ledger import Entry
from recompress.records import PromotionPlan
from recompress.watch.history import ENDED, RUN, SEEN


def story_of(entries: Iterable[Entry], plan: PromotionPlan) -> tuple[str, ...]:
    """The records that led to a plan: the base as it was seen, the runs that were claimed for it, and how they ended. Empty where nobody watched."""
    entries = list(entries)
    base = plan.facts.get("base_revision")
    proposals = {entry.body["key"] for entry in entries if entry.kind == RUN and base and base in entry.body["sources"].values()}
    made = {entry.body["key"] for entry in entries if entry.kind == ENDED and entry.body.get("plan") == plan.digest}
    lines = []
    for entry in entries if made else ():
        body, branch = entry.body, entry.body.get("branch")
        if entry.kind == SEEN and base and body["revision"] == base:
            lines.append(f"{_at(entry)} saw {body['source']} {body['place']} at {base}, digest {body['digest']}")
        elif entry.kind == RUN and body["key"] in proposals | made:
            passed = f"; superseded: {', '.join(body['superseded'])}" if body.get("superseded") else ""
            lines.append(f"{_at(entry)} claimed run {body['key'][:12]}… for {entry.actor}: {'; '.join(body.get('why') or ('-',))}{passed}")
        elif entry.kind == ENDED and body["key"] in proposals | made:
            lines.append(f"{_at(entry)} ended run {body['key'][:12]}…: {body['outcome']}{f', branch {branch}' if branch else ''}")
    return tuple(lines)


def _at(entry: Entry) -> str:
    return f"record {entry.sequence} at {entry.time[:19]}Z"
