"""A verdict on a recipe: the bound over trainings, against its formula, against Student's, and at the margin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from recompress.gate import Again, choose, is_proven
from recompress.gate.comparisons import compare
from recompress.gate.spread import RecipeEstimate, detectable_by, of_recipe
from recompress.gate.statistics import LossEstimate, estimate_loss, pair, resample
from recompress.gate.trainings import mean_over, side_by_side
from recompress.records import Look, Verdict
from studies.gate_populations import accuracy, f1
from studies.gate_trainings import false_passes
from tests.gate.cases import case, expected, measured, policy, scores, verdict

NAMES = (("1" * 64, "5" * 64), ("2" * 64, "6" * 64))


def judged(*wrong: set[int], look: Look | None = None, **changes) -> Verdict:
    """The passing case with further trainings, of which the candidates have these wrong."""
    rules = policy(trainings=len(wrong) + 1, **changes)
    baseline = set(range(0, 768, 8)) | {3, 777}
    again = [Again(7 + i, measured("small", NAMES[i][0], mistakes), measured("baseline", NAMES[i][1], baseline)) for i, mistakes in enumerate(wrong)]
    level = {} if look is None else {"look": look}
    return verdict(policy=rules, again=again, expected=expected(rules, trainings=NAMES[: len(wrong)]), **level)


def test_the_recipe_is_judged_beside_the_model_and_says_of_how_many_trainings() -> None:
    outcome = judged(set(range(0, 800, 8)) - {8, 16}, set(range(0, 800, 8)))
    assert outcome.passed
    own, recipe = ([loss for loss in outcome.losses if bool(loss.trainings) == several] for several in (False, True))
    assert [(loss.against, loss.slice) for loss in own] == [(loss.against, loss.slice) for loss in recipe]
    assert recipe[0].trainings == pytest.approx((2 / 800, 0.0, 2 / 800))
    assert recipe[0].loss == pytest.approx(np.mean(recipe[0].trainings))
    assert (recipe[0].candidate, recipe[0].other) == (pytest.approx((700 + 702 + 700) / 2400), pytest.approx(702 / 800))
    assert own[0].as_json() == verdict().losses[0].as_json(), "the one that would be promoted is judged as ever"
    assert [(training.seed, training.candidate_sha256, training.candidate) for training in outcome.trainings] == [
        (7, "1" * 64, 702 / 800),
        (8, "2" * 64, 0.875),
    ]
    detail = next(finding.detail for finding in outcome.findings if finding.check == "recipe-loss-against-baseline")
    assert "3 trainings with seeds that were fixed before: accuracy 0.8750, 0.8775, 0.8750 against 0.8775, " in next(
        finding.detail for finding in outcome.findings if finding.check == "trainings"
    )
    assert "means over 3 trainings, whose losses are +0.0025, +0.0000, +0.0025 (standard deviation 0.0014)" in detail


def test_one_lucky_training_is_not_enough_and_one_lucky_first_is_not_picked_out() -> None:
    bad = judged(set(range(0, 800, 5)), set(range(0, 800, 5)))
    assert "loss-too-large" in bad.reasons
    assert {f.check.split("/")[0] for f in bad.findings if f.reason == "loss-too-large"} <= {"recipe-loss-against-baseline", "recipe-loss-against-champion"}
    rules = policy(trainings=2)
    best = Again(7, measured("small", "1" * 64, set()), measured("baseline", "5" * 64, set(range(0, 768, 8))))
    unlucky = measured("small", "c" * 64, set(range(0, 800, 5)))
    outcome = verdict(policy=rules, candidate=unlucky, again=[best], expected=expected(rules, trainings=(("1" * 64, "5" * 64),)))
    assert "loss-against-baseline" in {f.check for f in outcome.findings if f.reason == "loss-too-large"}, "the first is promoted, and it is not good enough"
    assert choose(rules, [outcome]) is None


def test_a_recipe_that_is_refused_does_not_get_its_look_back() -> None:
    """The first training is fine and the second is not: whoever trains again until both are has had one more look."""
    outcome = judged(set(range(0, 800, 8)) | set(range(1, 320, 2)), set(range(0, 800, 8)))
    assert {finding.check for finding in outcome.findings if not finding.passed} >= {"recipe-loss-against-baseline"}
    assert not is_proven(outcome)


def test_what_the_budget_is_charged_covers_the_recipe_too() -> None:
    far = judged(set(range(0, 800, 8)) - set(range(0, 160, 8)), set(range(0, 800, 8)), baseline={"margin": 0.3}, champion={"margin": 0.3}, loss_budget=0.9)
    uppers = [loss.upper for loss in far.losses if loss.against == "champion" and not loss.slice]
    assert len(uppers) == 2
    assert far.spent_loss_after == pytest.approx(0.01 + max(uppers))
    assert max(uppers) == uppers[1], "trainings that lie apart make the recipe less certain than its first model"


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_bound_is_the_formula(trainings: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.random((trainings, 200)) < 0.8, rng.random((trainings, 200)) < 0.82
    models = [[measured(name, "0" * 64, set(np.flatnonzero(~right)), count=200) for right in each] for name, each in (("c", ours), ("b", theirs))]
    rules = policy(baseline={"margin": 0.05})
    [loss] = compare(rules, scores, side_by_side(models[0]), side_by_side(models[1]), "baseline", 0.05, trainings=trainings)
    losses = theirs.mean(1) - ours.mean(1)
    assert loss.trainings == pytest.approx(losses)
    sides = [side_by_side(each).counts for each in models]
    strata, mean = pair(*sides, [""] * 200), mean_over(trainings, scores, "accuracy")
    estimate = estimate_loss([*strata.values()], resample(strata, draws=rules.draws, seed=rules.seed)[""], lambda totals: np.asarray(mean(totals)["accuracy"]))
    between = student.ppf(0.95, trainings - 1) * losses.std(ddof=1) / np.sqrt(trainings)
    assert estimate.loss == pytest.approx(losses.mean())
    assert loss.upper == pytest.approx(estimate.loss + np.hypot(estimate.upper(0.05) - estimate.loss, between))
    assert loss.upper >= max(estimate.loss + between - 1e-9, loss.loss)


def test_the_mean_is_of_metrics_and_not_of_counts() -> None:
    counts = np.array([[8, 10, 10, 1, 2, 2]])
    assert mean_over(2, lambda totals: {"f1": f1(totals)}, "f1")(counts)["f1"] == pytest.approx([(0.8 + 0.5) / 2])


def test_equal_trainings_add_nothing_and_one_is_what_it_was() -> None:
    plain = LossEstimate(0.01, np.linspace(-0.01, 0.03, 101), 500, 0.008, 0.0)
    assert of_recipe(plain, np.ones(2), np.ones(2), accuracy, 1) is plain
    same = of_recipe(plain, np.array([80.0, 100, 80, 100]), np.array([81.0, 100, 81, 100]), accuracy, 2)
    assert isinstance(same, RecipeEstimate)
    assert same.losses == pytest.approx((0.01, 0.01))
    assert same.upper(0.05) == pytest.approx(plain.upper(0.05))
    assert same.smallest_detectable(0.05, 0.8) == pytest.approx(plain.smallest_detectable(0.05, 0.8))


def test_what_can_be_shown_of_a_recipe_is_the_bounds_width_and_the_luck_that_the_power_allows_for() -> None:
    """By hand, with so many examples that Wilson's term is nothing. Two trainings, 2 points apart: 1 point of standard error between them, and 1 over examples."""
    width = np.hypot(1.6448536 * 0.01, 6.3137515 * 0.01)  # of the normal law at 95 %, and of Student's with one degree of freedom
    luck = 0.8416212 * np.hypot(0.01, 0.01)
    assert detectable_by((0.0, 0.02), 0.01, 0.05, 0.8, 1e12) == pytest.approx(width + luck, rel=1e-5)
    assert detectable_by((0.0, 0.02), 0.0, 0.05, 0.8, 1e12) == pytest.approx((6.3137515 + 0.8416212) * 0.01, rel=1e-5)
    assert detectable_by((), 0.01, 0.05, 0.8, 1e12) == pytest.approx((1.6448536 + 0.8416212) * 0.01, rel=1e-5)


def test_groups_count_for_recipes_as_for_one_training() -> None:
    plain = LossEstimate(0.01, np.linspace(-0.01, 0.03, 101), 500, 0.008, 0.0, groups=40, worth=25.0)
    same = of_recipe(plain, np.array([80.0, 100, 80, 100]), np.array([81.0, 100, 81, 100]), accuracy, 2)
    assert same.smallest_detectable(0.05, 0.8) == pytest.approx(plain.smallest_detectable(0.05, 0.8))
    assert same.upper(0.05) == pytest.approx(plain.upper(0.05))


@given(st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_p_value_is_where_the_bound_meets_the_margin(losses: list[float]) -> None:
    estimate = RecipeEstimate(0.0, np.linspace(-0.02, 0.02, 4001), 2000, 0.01, 0.0, losses=tuple(losses))
    value = estimate.p_value(0.03)
    if 1e-3 < value < 0.5:
        assert estimate.upper(value) == pytest.approx(0.03, abs=1e-4)
    assert estimate.upper(0.05) >= student.ppf(0.95, len(losses) - 1) * np.std(losses, ddof=1) / np.sqrt(len(losses)) - 1e-9
    assert estimate.smallest_detectable(0.05, 0.8) > 0


def test_verdicts_and_policies_from_before_keep_their_digests() -> None:
    assert "trainings" not in policy().as_json()
    assert policy(trainings=1).sha256 == policy().sha256 != policy(trainings=2).sha256
    assert "trainings" not in verdict().as_json()
    assert "trainings" not in verdict().losses[0].as_json()


def test_at_the_margin_few_recipes_pass_where_one_training_or_a_bootstrap_of_two_lets_more_through() -> None:
    shares = false_passes(trainings=2, between=0.03, examples=500, margin=0.06, repeats=150, seed=5)
    assert shares["recipe"] <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 150)
    assert shares["first training alone"] > 0.1
    assert shares["bootstrap of trainings"] > 0.06


def test_a_first_model_that_does_not_answer_for_the_recipe_is_refused_with_the_rest() -> None:
    given_ = case()
    broken = replace(given_["candidate"], counts=given_["candidate"].counts[:-1])
    rules = policy(trainings=2)
    outcome = verdict(policy=rules, candidate=broken, expected=expected(rules))
    assert {"mismatched-lengths", "missing-trainings"} <= set(outcome.reasons)


@pytest.mark.parametrize("accepted", ["baseline", "another", "none"])
def test_a_further_training_whose_baseline_failed_is_a_weak_baseline_too(accepted: str) -> None:
    """Candidate and baseline of the second training are equally bad, so that nothing seems to be lost."""
    rules = policy(trainings=2, at_least=None, **{side: {"margin": 0.3} for side in ("baseline", "champion")}, loss_budget=0.9)
    failed = set(range(0, 800, 2))
    again = [Again(7, measured("small", "1" * 64, failed), measured("baseline", "5" * 64, failed))]
    last = {"baseline": case()["baseline"].evaluation.model_sha256, "another": "ac" * 32, "none": None}[accepted]
    wanted = expected(rules, trainings=NAMES[:1], accepted_baseline_sha256=last)
    other = measured("accepted", "ac" * 32, set(range(0, 800, 8))) if accepted == "another" else None
    outcome = verdict(policy=rules, again=again, expected=wanted, accepted_baseline=other)
    weak = {finding.check for finding in outcome.findings if finding.reason == "weak-baseline"}
    assert weak == (set() if accepted == "none" else {"baseline/training 2"})
    floor = policy(trainings=2, at_least=0.6, **{side: {"margin": 0.3} for side in ("baseline", "champion")}, loss_budget=0.9)
    below = verdict(policy=floor, again=again, expected=expected(floor, trainings=NAMES[:1], accepted_baseline_sha256=last), accepted_baseline=other)
    assert {"floor/baseline/training 2", "floor/candidate/training 2"} <= {f.check for f in below.findings if f.reason.endswith("-below-floor")}
