"""The table of a promotion: no way leads around a person or a check, and a record that it does not allow breaks the ledger by its number."""

from __future__ import annotations

import pytest

from recompress.integrity.digest import canonical_json
from recompress.ledger import Entry, LedgerBroken
from recompress.promotion.states import OPENERS, PLAN_KINDS, STEPS, follow
from tests.ledger.chains import PLAN, body_of


def records(*kinds: str) -> list[Entry]:
    """Records of one plan; ``follow`` looks at no hash."""
    bodies = [canonical_json(body_of(kind) | {"plan": PLAN.digest}).decode() for kind in kinds]
    return [Entry(number, "2026-11-20T12:00:00Z", "ada", kind, body, "", "") for number, (kind, body) in enumerate(zip(kinds, bodies, strict=True), start=1)]


def ways(without: str = "") -> dict[str, tuple[str, ...]]:
    """To each state that can be reached from a proposal, through none that is left out, the kinds of record that lead there."""
    reached, waiting = {"proposed": ("promotion-proposed",)}, ["proposed"]
    for state in waiting:
        for kind, after in STEPS[state].items():
            if after not in reached and after != without:
                reached[after] = (*reached[state], kind)
                waiting.append(after)
    return reached


@pytest.mark.parametrize("state", ["judged", "approved", "intent", "alias-moved", "verified"])
def test_no_way_to_the_end_leads_around(state: str) -> None:
    assert "committed" in ways()
    assert "committed" not in ways(without=state)


@pytest.mark.parametrize("state", ["committed", "refused", "rejected", "expired", "rolled-back"])
def test_nothing_follows_on_an_end(state: str) -> None:
    progress = follow(records(*ways()[state]))
    assert progress is not None
    assert (progress.state, progress.ended) == (state, True)
    for kind in PLAN_KINDS:
        with pytest.raises(LedgerBroken, match=f"{kind} cannot follow on {state}"):
            follow(records(*ways()[state], kind))


@pytest.mark.parametrize("state", STEPS)
def test_a_record_that_the_table_does_not_allow_is_named(state: str) -> None:
    way = ways()[state]
    for kind in set(PLAN_KINDS) - STEPS[state].keys():
        with pytest.raises(LedgerBroken, match=f"ledger record {len(way) + 1}: {kind} cannot follow on {state}"):
            follow(records(*way, kind))


def test_a_record_that_names_a_plan_and_holds_another_is_broken() -> None:
    """People approve a digest: what is carried out must be what has it."""
    opened, judged = records("promotion-proposed", "promotion-judged")
    other = opened.body | {"content": PLAN.model_copy(update={"candidate": "another"}).as_json()}
    with pytest.raises(LedgerBroken, match=f"ledger record 1: the plan inside does not have the digest {PLAN.digest[:12]}"):
        follow([opened._replace(body_text=canonical_json(other).decode()), judged])


@pytest.mark.parametrize("kind", sorted(set(PLAN_KINDS) - set(OPENERS)))
def test_nothing_comes_before_the_proposal(kind: str) -> None:
    with pytest.raises(LedgerBroken, match=f"ledger record 1: {kind} cannot follow on nothing"):
        follow(records(kind, "promotion-proposed"))
