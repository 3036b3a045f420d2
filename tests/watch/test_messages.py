"""Which records call for a message, what it says, and which silence is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recompress.ledger.entry import GENESIS, Entry, Head, make_entry
from recompress.ledger.store import rfc3339
from recompress.records import ApprovalRule
from recompress.watch.messages import Message, messages
from recompress.watch.silence import silences
from tests.ledger.chains import PLAN, body_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
FACTS = {"recipe": "ner", "base_model": "some/encoder", "base_revision": "c2"}
WATCH = {"recipe": "ner", "source": "base", "place": "some/encoder"}


def records(*said: tuple[str, dict[str, Any]], times: list[datetime] | None = None) -> list[Entry]:
    entries: list[Entry] = []
    for i, (kind, body) in enumerate(said):
        head = entries[-1].head if entries else Head(0, GENESIS)
        moment = times[i] if times else NOW
        entries.append(make_entry(head, time=rfc3339(moment), actor="ada", kind=kind, body=body))
    return entries


def plan_of(*, required: bool = False) -> Any:
    return PLAN.model_copy(update={"facts": FACTS, "approval": ApprovalRule(required=required)})


def proposed(plan: Any, *later: tuple[str, dict[str, Any]], spent: float = 0.01) -> list[tuple[str, dict[str, Any]]]:
    about = {"plan": plan.digest, "model": plan.model}
    return [
        ("policy-recorded", {"recipe": "ner", "policy_sha256": plan.policy_sha256, "policy": {"loss_budget": 0.1}}),
        ("promotion-proposed", {**about, "alike": plan.digest, "content": plan.as_json()}),
        ("promotion-judged", {**about, "verdict": "a" * 64, "metric": "f1", "score": 0.75, "spent_loss_after": spent}),
        *((kind, {**body_of(kind), **about, **body}) for kind, body in later),
    ]


def ended(**said: Any) -> tuple[str, dict[str, Any]]:
    return "watch-run-ended", {"recipe": "ner", "key": "k", "final": True, "summary": "in a line", "page": "/p/ner.html", **said}


def told(*said: tuple[str, dict[str, Any]], after: int = 0) -> list[Message]:
    return messages(records(*said), after, NOW, 0.8)


def test_a_new_champion_is_told_with_its_verdict_its_base_and_its_page() -> None:
    [message] = told(*proposed(plan_of(), ("promotion-committed", {})))
    assert (message.event, message.title) == ("champion changed", "ner: the champion changed")
    for part in ("version 1 of ner is champion: int8", "f1 0.75", "some/encoder c2", "reports/ner.html"):
        assert part in message.body


@pytest.mark.parametrize(("spent", "events"), [(0.079, []), (0.08, ["budget nearly spent"]), (0.1, ["budget nearly spent"])])
def test_a_budget_that_is_nearly_spent_is_told(spent: float, events: list[str]) -> None:
    assert [message.event for message in told(*proposed(plan_of(), ("promotion-committed", {}), spent=spent))][1:] == events


@pytest.mark.parametrize(
    ("record", "event", "part"),
    [
        (("source-not-visible", {**WATCH, "why": "it is gated"}), "source not visible", "it is gated. The champion stays."),
        (("source-waits", {**WATCH, "why": "its licence is other"}), "waiting for approval", "its licence is other"),
        (ended(outcome="proposed", branch="recompress/ner-1", plan="f" * 64), "waiting for approval", "Branch: recompress/ner-1"),
        (ended(outcome="waiting for approval", plan="f" * 64), "waiting for approval", "f" * 64),
        (ended(outcome="refused"), "refused", "in a line\nPage: /p/ner.html"),
        (ended(outcome="data refused"), "refused", "in a line"),
        (ended(outcome="failed", final=False), "run failed", "in a line"),
    ],
)
def test_each_event_is_told_once(record: tuple[str, dict[str, Any]], event: str, part: str) -> None:
    [message] = told(record)
    assert (message.event, part in message.body) == (event, True)
    assert told(record, after=1) == []


def test_what_says_nothing_new_is_not_told() -> None:
    assert told(ended(outcome="promoted"), ("watch-looked", {"recipe": "ner", "every_s": 900.0}), *proposed(plan_of())) == []


def test_a_plan_that_waits_is_told_by_whoever_made_it_and_by_one_alone() -> None:
    plan = plan_of(required=True)
    assert [message.event for message in told(*proposed(plan))] == ["waiting for approval"]
    claim = ("watch-run", {"recipe": "ner", "key": "k", "sources": {}, "after": ""})
    assert told(claim, *proposed(plan)) == [], "the watch that runs it will say more"
    [message] = told(claim, *proposed(plan), ended(outcome="proposed", plan=plan.digest, branch="b"))
    assert "Branch: b" in message.body


def at(*hours: float, every_s: float = 900.0) -> list[Entry]:
    times = [NOW - timedelta(hours=hour) for hour in hours]
    return records(*[("watch-looked", {"recipe": "ner", "every_s": every_s})] * len(times), times=times)


def test_silence_longer_than_two_days_or_two_intervals_is_a_gap_while_it_lasts_and_after() -> None:
    assert silences(at(72, 48, 24, 1), NOW) == []
    [gap] = silences(at(120, 71, 24), NOW)
    assert (gap.until, gap.record.sequence) == (NOW - timedelta(hours=71), 1)
    [gap] = silences(at(100, 49), NOW + timedelta(minutes=1))[1:]
    assert (gap.until, "until now" in gap.text) == (None, True)
    weekly = 7 * 24 * 3600.0
    assert silences(at(300, every_s=weekly), NOW) == []
    assert len(silences(at(340, every_s=weekly), NOW)) == 1


def test_a_clock_that_was_wrong_makes_no_gap_and_hides_none() -> None:
    day = timedelta(days=1)
    for wrong in (3650 * day, -3650 * day):
        times = [NOW - hours * timedelta(hours=1) for hours in (96, 72, 48, 24)]
        for place in range(2, len(times)):
            said = [*times[:place], NOW + wrong, *times[place:]]
            looks = records(*[("watch-looked", {"recipe": "ner"})] * len(said), times=said)
            assert silences(looks, NOW) == []
            assert len(silences(looks, NOW + 9 * day)) == 1
            assert len(silences(looks, NOW + 9999 * day)) == 1, "when it is late enough for the wrong one too"


def test_silence_is_told_once() -> None:
    entries = at(120, 1)
    [message] = messages(entries, 0, NOW, 0.8)
    assert (message.event, message.about) == ("watch silent", entries[0].hash)
