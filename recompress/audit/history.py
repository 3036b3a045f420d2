"""What happened, in order, and who was champion at any time. Times are those of the ledger's records, by the clocks of the machines that wrote them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from recompress.errors import InputError
from recompress.ledger import Entry
from recompress.ledger.store import rfc3339
from recompress.promotion.states import OPENERS
from recompress.records import Record

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MOVES = ("promotion-alias-moved", "promotion-rolled-back", "alias-moved-outside")
"""Records after which another version may be champion."""


class Reign(Record):
    """A time during which one version was champion."""

    model: str
    version: str | None
    """``None`` while there was no champion."""
    since: str
    until: str | None
    """``None`` for the present one."""
    by: str
    """Who moved the alias, or who found it moved."""
    how: str
    """``promotion``, ``rollback``, ``undone``, or ``outside``: somebody moved it without the ledger, some time before ``since``."""
    plan: str = ""
    candidate: str = ""
    model_sha256: str = ""
    approver: str = ""
    record: int
    """The number of the ledger's record that says so."""


def log_lines(entries: Iterable[Entry], model: str | None = None) -> list[dict[str, Any]]:
    """A line for each record. With ``model`` only those that speak of it, and those of the recipes that made it."""
    entries = list(entries)
    recipes = {plan_of(entry).get("facts", {}).get("recipe") for entry in entries if entry.kind in OPENERS and entry.body.get("model") == model}
    shown = [entry for entry in entries if model is None or entry.body.get("model") == model or entry.body.get("recipe") in [*recipes - {None}]]
    return [{"record": e.sequence, "time": e.time, "actor": e.actor, "kind": e.kind, "told": _told(e), "hash": e.hash} for e in shown]


def check_model(entries: Iterable[Entry], model: str) -> None:
    """Raises ``InputError`` for a model that no promotion is known of."""
    known = sorted({str(entry.body.get("model")) for entry in entries if entry.kind in (*OPENERS, "alias-moved-outside")})
    if model not in known:
        near = difflib.get_close_matches(model, known, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}" if known else "nothing was ever proposed"
        raise InputError(f"the ledger knows no model {model!r}; {way_out}")


def reigns(entries: Iterable[Entry], model: str) -> list[Reign]:
    """Who was champion from when until when, oldest first."""
    history: list[Reign] = []
    plans: dict[str, Entry] = {}
    approvers: dict[str, str] = {}
    for entry in entries:
        body = entry.body
        if body.get("model") != model:
            continue
        if entry.kind in OPENERS:
            plans[body["plan"]] = entry
        elif entry.kind == "approval":
            approvers[body["plan"]] = entry.actor
        elif entry.kind in MOVES:
            if history:
                history[-1] = history[-1].model_copy(update={"until": entry.time})
            history.append(_reign(entry, model, plans, approvers))
    return history


def who_was(entries: Iterable[Entry], model: str, begin: datetime, end: datetime) -> list[Reign]:
    """Every champion between two moments, both included. Empty when there was none yet."""
    return [reign for reign in reigns(entries, model) if _time(reign.since) <= end and (reign.until is None or _time(reign.until) > begin)]


def parse_time(text: str, now: datetime) -> tuple[datetime, datetime]:
    """A moment, or the whole of a day (``2026-11-17``), in UTC unless it says otherwise. Raises ``InputError`` for anything else, and for the future."""
    try:
        if not DAY.match(text.strip()):
            raise ValueError("20261117 and 2026-W47 mean a moment to Python, and a day to people")
        moment = datetime.fromisoformat(text.strip())
        begin = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        _ = begin + timedelta(days=1)  # the calendar has ends
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is no time; write 2026-11-17, or 2026-11-17T14:30 (UTC), or 2026-11-17T14:30+03:00") from None
    if begin > now:
        raise InputError(f"{rfc3339(begin)} is still to come; it is {rfc3339(now)} now")
    return begin, begin + timedelta(days=1, microseconds=-1) if DAY.fullmatch(text.strip()) else begin


def plan_of(entry: Entry) -> dict[str, Any]:
    """The plan that a record proposes."""
    content = entry.body.get("content")
    return content if isinstance(content, dict) else {}


def _reign(entry: Entry, model: str, plans: dict[str, Entry], approvers: dict[str, str]) -> Reign:
    body = entry.body
    if entry.kind == "alias-moved-outside":
        return Reign(model=model, version=body["registry"], since=entry.time, until=None, by=entry.actor, how="outside", record=entry.sequence)
    plan = body["plan"]
    opened = plans.get(plan)
    content = plan_of(opened) if opened else {}
    if entry.kind == "promotion-rolled-back":
        return Reign(model=model, version=body["champion"], since=entry.time, until=None, by=entry.actor, how="undone", plan=plan, record=entry.sequence)
    return Reign(
        model=model,
        version=body["version"],
        since=entry.time,
        until=None,
        by=entry.actor,
        how="rollback" if opened and opened.kind == "rollback" else "promotion",
        plan=plan,
        candidate=str(content.get("candidate", "")),
        model_sha256=str(content.get("model_sha256", "")),
        approver=approvers.get(plan, ""),
        record=entry.sequence,
    )


def _told(entry: Entry) -> str:
    """What a record says, in one line."""
    body = entry.body
    plan = plan_of(entry)
    if plan:
        expected = plan.get("expected")
        before = f"version {expected['version']}" if expected else "none"
        reason = f": {plan['reason']}" if plan.get("reason") else ""
        return f"{plan.get('candidate')} to champion of {plan.get('model')}, instead of {before}{reason}"
    if entry.kind == "test-look":
        look = body["content"]
        return f"look {look['number']} at test split {look['split'][:12]}… for {look['model']}, level {look['level']:.4g} of {look['budget']:.4g}"
    if entry.kind == "finalists-named":
        names = ", ".join(str(model.get("name")) for model in body["content"].get("finalists", ()))
        return f"{names or 'nobody'} to be judged on test split {body['split'][:12]}… for {body['model']}, in this order"
    shown = {key: value for key, value in body.items() if key not in ("plan", "key", "policy", "content", "signature", "recipe_sha256", "alike", "waivers")}
    return ", ".join(f"{key} {_short(value)}" for key, value in shown.items())


def _short(value: Any) -> str:
    text = str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if is_digest else text if len(text) <= 120 else f"{text[:117]}…"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
