"""What a person is told of a test split as its budget runs down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recompress.gate import Measured, is_proven
from recompress.gate.levels import LADDERS, Past, next_level
from recompress.gate.looks_left import left_after
from recompress.gate.statistics import detectable
from recompress.records import Verdict
from tests.gate.cases import CANDIDATE, COUNT, case, expected, look, measured, policy, verdict
from tests.gate.test_levels import follow
from tests.gate.test_trainings import judged

WIDE = {"baseline": {"margin": 0.05}, "champion": {"margin": 0.05}}


def left(refused: int, reached: Verdict | None = None) -> dict:  # type: ignore[type-arg]
    return left_after(follow([(1, [False] * 4)] * refused), reached, alpha=0.05, power=0.8)


def test_before_the_first_look_there_is_nothing_to_tell() -> None:
    assert left_after([], verdict(), alpha=0.05, power=0.8) == {}


def test_it_says_how_many_looks_there_were_and_what_a_good_candidate_still_needs() -> None:
    rules = policy(**WIDE)
    reached = verdict(policy=rules, expected=expected(rules), look=look(level=0.01))
    told = left(2, reached)
    history = follow([(1, [False] * 4)] * 2)
    assert (told["looks"], told["refused"]) == (2, 2)
    assert told["next_levels"] == {"first": next_level(history, LADDERS[:1], 0.05), "others": next_level(history, LADDERS[1:], 0.05)}
    assert told["told"].startswith("This test split has had 2 looks, 2 of them refused; 62 % of its error budget of 5 % is used up.")
    strata_error = (6 / 800 - (2 / 800) ** 2) ** 0.5 / 799**0.5  # 4 lost and 2 won against the baseline
    assert told["passes_from"]["baseline"] == pytest.approx(detectable(strata_error, told["next_levels"]["first"], 0.8, 800), rel=1e-3)
    assert "a candidate like small that loses nothing passes from a margin of" in told["told"]
    assert told["warning"] == ""
    assert "had 1 look," in left(1)["told"]


@pytest.mark.parametrize("trainings", [1, 3])
def test_what_a_candidate_needs_is_what_the_gate_would_ask_of_it_at_the_next_level(trainings: int) -> None:
    """Also where a recipe is judged by several trainings, whose spread counts besides."""
    again = [set(range(0, 800, 8)) - set(range(0, 8 * (9 + number), 8)) for number in range(trainings - 1)]
    now, wide = judged(*again, **WIDE), {"margin": 0.05}
    needs = left(2, now)["passes_from"]["baseline"]
    level = next_level(follow([(1, [False] * 4)] * 2), LADDERS[:1], 0.05)
    later = judged(*again, baseline=wide, champion=wide, look=look(level=level))
    [asked] = [loss for loss in later.losses if loss.against == "baseline" and not loss.slice and len(loss.trainings) == (trainings if trainings > 1 else 0)]
    assert needs == pytest.approx(asked.smallest_detectable, rel=1e-6)
    assert needs > 1.2 * next(loss for loss in now.losses if loss.trainings == asked.trainings).smallest_detectable


def test_what_is_needed_is_told_for_the_safest_finalist_where_the_others_have_used_up_more() -> None:
    history = follow([(3, [False] * 4)] * 2)
    rules = policy(**WIDE)
    told = left_after(history, verdict(policy=rules, expected=expected(rules), look=look(level=0.01)), alpha=0.05, power=0.8)
    first, others = told["next_levels"]["first"], told["next_levels"]["others"]
    assert others < 0.5 * first
    strata_error = (6 / 800 - (2 / 800) ** 2) ** 0.5 / 799**0.5
    assert told["passes_from"]["baseline"] == pytest.approx(detectable(strata_error, first, 0.8, 800), rel=1e-3)
    assert f"safest finalist is judged at {100 * first:.2g} %, the others at {100 * others:.2g} %" in told["told"]


def test_where_texts_belong_to_documents_a_candidate_needs_what_the_gate_asks_of_documents() -> None:
    roles = {role: replace(model, groups=[i // 8 for i in range(COUNT)]) for role, model in case().items() if isinstance(model, Measured)}
    rules = policy(baseline={"margin": 0.3}, champion={"margin": 0.3}, loss_budget=0.9)
    wanted = expected(rules, groups=COUNT // 8)
    needs = left(2, verdict(policy=rules, expected=wanted, **roles))["passes_from"]
    level = next_level(follow([(1, [False] * 4)] * 2), LADDERS[:1], 0.05)
    later = verdict(policy=rules, expected=wanted, look=look(level=level), **roles)
    asked = {loss.against: loss.smallest_detectable for loss in later.losses if not loss.slice}
    assert {loss.worth for loss in later.losses} == {COUNT / 8}
    assert needs == pytest.approx(asked, rel=1e-6)


def test_a_line_warns_as_it_runs_down_and_says_when_nothing_can_pass_any_more() -> None:
    wrong = set(range(0, 800, 8))
    noisy = {"candidate": measured("small", CANDIDATE, {i + 1 if i < 160 else i for i in wrong})}
    rules = policy(baseline={"margin": 0.05}, champion={"margin": 0.05}, limits=None)
    reached = verdict(policy=rules, expected=expected(rules), **noisy)
    needs = [max(left(count, reached)["passes_from"].values()) for count in range(1, 60)]
    assert needs == sorted(needs)
    warnings = [left(count, reached)["warning"] for count in range(1, 60)]
    order = [w[:40] for w in dict.fromkeys(warnings)]
    assert order == ["", "This test split is running down: prepare", "Nothing more can be expected to pass: th"]
    assert all((need > 0.05) == warning.startswith("Nothing") for need, warning in zip(needs, warnings, strict=True))
    assert left(59, reached)["told"].endswith("Only fresh test data, or more of it, changes that.")


def test_a_look_that_proved_the_quality_costs_nothing_whatever_else_was_refused() -> None:
    rules = policy(limits={"size_bytes": 1})
    too_large = verdict(policy=rules, expected=expected(rules))
    assert (too_large.passed, is_proven(too_large)) == (False, True)
    assert not is_proven(verdict(candidate=measured("small", CANDIDATE, set(range(0, 800, 5)))))
    assert not is_proven(verdict(baseline=None, policy=rules, expected=expected(rules)))  # nothing was compared
    assert not is_proven(verdict(look=None))
    floor = verdict(policy=policy(at_least=0.99), expected=expected(policy(at_least=0.99)))
    assert floor.losses
    assert not is_proven(floor), "a floor is held at the level of the look as a margin is"
    assert not is_proven(verdict(expected=expected(policy(), refused_before=True)))


def test_what_is_not_known_yet_counts_as_refused() -> None:
    history = [Past(past.look, None) for past in follow([(3, [True] * 4)])]
    assert left_after(history, None, alpha=0.05, power=0.8)["refused"] == 3
