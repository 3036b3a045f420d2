"""Who is judged on the test split: by dev alone, the safest first, the others by the policy's rule, and why not for everybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recompress.gate import Measured, select
from recompress.gate.statistics import estimate_loss, pair, resample
from recompress.records import Selection
from studies.gate_populations import accuracy
from studies.gate_replica import room
from tests.gate.cases import measured, policy, scores

WRONG = set(range(0, 800, 8))
PLAIN: dict[str, Any] = {"baseline": {"margin": 0.05}, "champion": {"margin": 0.05}}


def variant(name: str, loses: int, *, wins: int = 0, **metrics: float) -> Measured:
    """One that gets ``loses`` examples wrong that the baseline gets right, and ``wins`` right that it gets wrong."""
    wrong = (WRONG - set(sorted(WRONG)[:wins])) | set(range(1, 8 * loses, 8))
    return measured(name, f"{sum(map(ord, name)):064x}", wrong, **metrics)


BASELINE = measured("baseline", "b" * 64, WRONG, size_bytes=90e6, latency_ratio=1.0)


def chosen(*candidates: Measured, champion: Measured | None = None, **changes: Any) -> Selection:
    return select(policy(**(PLAIN | changes)), scores, candidates, BASELINE, champion)


def names(selection: Selection) -> list[str]:
    return [trial.name for trial in selection.finalists]


def test_the_safest_comes_first_and_then_the_smallest_of_those_that_dev_would_let_pass() -> None:
    selection = chosen(
        variant("near", 36, size_bytes=1e6),  # loses 4.5 points: inside the margin, but its bound is not
        variant("safe", 0, wins=2, size_bytes=20e6),
        variant("large", 2, size_bytes=19e6),
        variant("small", 8, size_bytes=5e6),
        variant("smaller", 12, size_bytes=4e6),
    )
    assert names(selection) == ["safe", "small", "smaller"]
    assert [trial.place for trial in selection.trials] == [None, 1, None, 2, 3]
    assert {t.name: t.reason for t in selection.trials if t.place is None} == {"near": "not-a-finalist", "large": "not-a-finalist"}
    assert all(trial.detail and "\n" not in trial.detail for trial in selection.trials)
    assert names(chosen(variant("safe", 0, size_bytes=20e6), variant("small", 8, size_bytes=5e6), finalists=1)) == ["safe"]


def test_the_rule_of_the_policy_decides_who_else_is_judged() -> None:
    candidates = [variant("safe", 0), variant("quick", 9, latency_ratio=9.0), variant("good", 1, latency_ratio=2.0), variant("other", 4)]
    assert names(chosen(*candidates, finalists=2, choose="fastest")) == ["safe", "quick"]
    assert names(chosen(*candidates, finalists=2, choose="best")) == ["safe", "good"]
    assert names(chosen(*candidates, finalists=2, choose="smallest")) == ["safe", "good"], "of one size the better, and not the faster"


def test_whoever_misses_a_limit_or_a_margin_on_dev_is_not_judged_at_all() -> None:
    selection = chosen(variant("fat", 0, size_bytes=31e6), variant("slow", 0, latency_ratio_runtime=1.0), variant("bad", 40), variant("fine", 3), finalists=20)
    assert names(selection) == ["fine"]
    assert [trial.reason for trial in selection.trials] == ["size-too-large", "latency-too-high", "loss-too-large", ""]


def test_a_recipe_with_few_variants_has_all_of_them_in_a_fixed_order() -> None:
    few = [variant("b", 9), variant("a", 9), variant("c", 1)]
    assert names(chosen(*few)) == names(chosen(*few[::-1])) == ["c", "a", "b"]


def test_a_slice_that_loses_too_much_counts_as_much_as_the_whole() -> None:
    one_sided = measured("one-sided", "5" * 64, WRONG | set(range(401, 700, 8)))
    slices = {"hau": 0.08, "swa": 0.08}
    assert names(chosen(one_sided)) == ["one-sided"]
    assert chosen(one_sided, baseline={"margin": 0.05, "slices": slices}).trials[0].reason == "loss-too-large"


def test_the_champion_has_a_margin_and_is_judged_besides_where_it_is_a_variant() -> None:
    strong = measured("champion", "a" * 64, set(range(0, 400, 8)))
    assert chosen(variant("fine", 1), champion=strong).trials[0].reason == "loss-too-large"
    champion = variant("large", 2, size_bytes=24e6)
    others = [variant("safe", 0), variant("small", 3, size_bytes=1e6), variant("tiny", 4, size_bytes=1e5), champion]
    assert "large" not in names(chosen(*others, finalists=2))
    assert set(names(chosen(*others, finalists=2, champion=champion))) == {"safe", "tiny", "large"}


@pytest.mark.parametrize("loses", [0, 3, 20])
def test_room_is_what_the_study_takes_for_it(loses: int) -> None:
    trial = chosen(variant("x", loses, wins=5), baseline={"margin": 0.04}, limits=None).trials[0]
    assert trial.room == pytest.approx(float(room(800, 0.04, np.array(loses), np.array(5))))


def test_undefined_metrics_are_no_finalists() -> None:
    undefined = select(policy(**PLAIN), lambda totals: {"accuracy": np.full(totals.shape[:-1], np.nan)}, [variant("x", 0)], BASELINE, None)
    assert names(undefined) == []


def test_what_dev_says_is_computed_without_any_draw() -> None:
    strata = pair(variant("x", 7).counts[:, :2], BASELINE.counts[:, :2], [""] * 800)
    drawn = estimate_loss(list(strata.values()), resample(strata, draws=1000, seed=0)[""], accuracy)
    assert estimate_loss(list(strata.values()), np.zeros((0, 4)), accuracy).standard_error == drawn.standard_error


def grouped(model: Measured, size: int, *, across: bool = False) -> Measured:
    """The same answers, in groups of ``size`` neighbours, or with each group half in one slice and half in the other."""
    return replace(model, groups=[(i % 400 if across else i) // size for i in range(len(model.slices))])


def test_room_on_dev_is_counted_in_groups_where_they_are_named() -> None:
    """Twenty losses in one document are one thing that went wrong, and twenty in twenty are not."""
    scattered, heaped = variant("scattered", 20), measured("heaped", "7" * 64, WRONG | {i for i in range(400, 424) if i % 8})
    models = [grouped(model, 20) for model in (scattered, heaped, BASELINE)]
    rooms = {trial.name: trial.room for trial in select(policy(**PLAIN), scores, models[:2], models[2], None).trials}
    plain = {trial.name: trial.room for trial in chosen(scattered, heaped).trials}
    assert rooms["heaped"] < 0.5 * plain["heaped"]  # type: ignore[operator]
    assert rooms["scattered"] > rooms["heaped"]  # type: ignore[operator]
    unharmed = [grouped(model, 20) for model in (variant("same", 0), BASELINE)]
    [same] = select(policy(**PLAIN), scores, unharmed[:1], unharmed[1], None).trials
    assert same.room == pytest.approx(0.05 * 40), "nothing was lost in 40 documents, and not in 800 texts"
    assert (same.inside, chosen(variant("same", 0)).trials[0].inside) == (False, True), "in so few documents 5 points may hide"
    narrow = policy(baseline={"margin": 0.3, "slices": {"hau": 0.05, "swa": 0.3}}, champion={"margin": 0.3}, loss_budget=0.9)
    [in_slices] = select(narrow, scores, unharmed[:1], unharmed[1], None).trials
    assert in_slices.room == pytest.approx(0.05 * 20), "and in the 20 documents of a slice as well"


def test_a_group_that_spans_slices_is_one_on_the_whole_split() -> None:
    slices = {"hau": 0.2, "swa": 0.2}
    lost = {i + half for i in range(40, 52) for half in (0, 400)}  # the same documents, lost in both slices
    models = [grouped(model, 4, across=True) for model in (measured("torn", "8" * 64, WRONG | lost), BASELINE)]
    torn = select(policy(baseline={"margin": 0.05, "slices": slices}, champion={"margin": 0.05}), scores, models[:1], models[1], None).trials[0]
    alone = select(policy(**PLAIN), scores, models[:1], models[1], None).trials[0]
    assert torn.room == pytest.approx(alone.room)
