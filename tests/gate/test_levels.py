"""The ladders: what a look costs, that all looks together stay in the budget whatever depends on what, and that nobody gets more by asking otherwise."""

from __future__ import annotations

from itertools import product
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.gate.levels import LADDERS, TOTAL, Past, budget_of, ladders_of, level_of, lowest_free, next_level, next_look, share, used

SPLIT, CANDIDATE = "b" * 64, "c" * 64
runs = st.lists(st.tuples(st.integers(1, 4), st.lists(st.sampled_from([True, False, None]), min_size=4, max_size=4)), max_size=12)


def follow(runs: list[tuple[int, list[bool | None]]], alpha: float = 0.05) -> list[Past]:
    """The history of these runs: finalists in each, and what came out of each look."""
    history: list[Past] = []
    for finalists, outcomes in runs:
        for place in range(finalists):
            key = f"{len(history):064d}"
            look = next_look(history, key=key, model="ner", split=SPLIT, candidate_sha256=CANDIDATE, ladders=ladders_of(place, finalists), alpha=alpha)
            history.append(Past(look, outcomes[place]))
    return history


def test_all_steps_together_are_one_ladder_and_no_more() -> None:
    terms = sum(share(step) for step in range(1, 200_000))
    tail = 1 / (TOTAL * log(200_000))  # what is left after so many steps lies between the two integrals
    assert terms + 1 / (TOTAL * log(200_002)) <= 1
    assert terms + tail == pytest.approx(1, abs=1e-6)
    assert all(share(step) > share(step + 1) for step in range(1, 1000))


def test_the_first_look_of_all() -> None:
    assert next_level([], ("first",), 0.05) == pytest.approx(0.05 / 2 * 0.4933, rel=1e-3)
    assert next_level([], LADDERS, 0.05) == pytest.approx(2 * next_level([], ("first",), 0.05))
    assert [ladders_of(place, 3) for place in range(3)] == [("first",), ("others",), ("others",)]
    assert ladders_of(0, 1) == LADDERS


def test_a_proof_costs_nothing_and_a_refusal_keeps_its_step() -> None:
    safest_passes = follow([(3, [True, False, False, None])] * 5)
    assert {past.look.level for past in safest_passes if "first" in past.look.steps} == {level_of([1], 0.05)}
    assert [past.look.steps["others"] for past in safest_passes if "others" in past.look.steps] == list(range(1, 11))
    assert used(safest_passes) == pytest.approx(sum(share(step) for step in range(1, 11)) / 2)
    assert used(follow([(3, [True] * 4)] * 5)) == 0


def test_a_step_that_is_given_back_is_taken_again() -> None:
    looks = follow([(1, [False] * 4), (1, [None] * 4), (1, [False] * 4)])
    finished = [*looks[:1], looks[1]._replace(proven=True), *looks[2:]]
    assert [past.look.steps["first"] for past in looks] == [1, 2, 3]
    assert lowest_free("first", looks) == 4  # what is not known yet counts as refused
    assert lowest_free("first", finished) == 2


@given(runs)
@settings(max_examples=200, deadline=None)
def test_those_that_are_not_proven_stand_on_steps_of_their_own_and_share_the_budget(runs: list[tuple[int, list[bool | None]]]) -> None:
    history = follow(runs)
    held = [(ladder, step) for past in history if not past.proven for ladder, step in past.look.steps.items()]
    assert len(set(held)) == len(held)
    assert sum(past.look.level for past in history if not past.proven) <= 0.05
    assert [past.look.number for past in history] == list(range(1, len(history) + 1))


@given(runs, st.data())
@settings(max_examples=200, deadline=None)
def test_one_proof_more_never_lowers_a_later_level(runs: list[tuple[int, list[bool | None]]], data: st.DataObject) -> None:
    """The first half of the proof in ``recompress.gate.levels``."""
    before = follow(runs)
    if not before:
        return
    flipped = data.draw(st.integers(0, len(before) - 1))
    at, place = next((i, p) for i, p, n in ((i, p, sum(f for f, _ in runs[:i]) + p) for i, (f, _) in enumerate(runs) for p in range(f)) if n == flipped)
    changed = [(f, [True if (i, p) == (at, place) else o for p, o in enumerate(outcomes)]) for i, (f, outcomes) in enumerate(runs)]
    assert all(after.look.level >= past.look.level for after, past in zip(follow(changed), before, strict=True))


@pytest.mark.parametrize("finalists", [1, 2, 3])
def test_whatever_depends_on_what_the_bad_ones_share_the_budget(finalists: int) -> None:
    """The second half, by going through every case: with all good looks proven and no bad one, the levels of the bad ones are at most the budget, and
    whatever happens until a first bad one passes, none of them has a higher level."""
    looks = 6
    for bad in product([False, True], repeat=looks):
        ideal = follow(_runs([not is_bad for is_bad in bad], finalists))
        worst = [past.look.level for past, is_bad in zip(ideal, bad, strict=True) if is_bad]
        assert sum(worst) <= 0.05
        for outcomes in product([False, True], repeat=looks):
            until = next((i for i in range(looks) if bad[i] and outcomes[i]), looks - 1)
            happened = follow(_runs(list(outcomes), finalists))
            assert all(happened[i].look.level <= ideal[i].look.level for i in range(until + 1) if bad[i])


def _runs(outcomes: list[bool], finalists: int) -> list[tuple[int, list[bool | None]]]:
    return [(finalists, [*outcomes[i : i + finalists], None]) for i in range(0, len(outcomes), finalists)]


def test_no_later_policy_gets_more_than_the_first_and_a_stricter_one_gets_less() -> None:
    history = follow([(1, [False] * 4)], alpha=0.02)
    assert budget_of(history, 0.1) == 0.02
    assert budget_of(history, 0.01) == 0.01
    assert next_level(history, LADDERS, 0.1) == next_level(history, LADDERS, 0.02) == 2 * next_level(history, LADDERS, 0.01)
