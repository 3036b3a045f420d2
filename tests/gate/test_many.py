"""Many candidates and many runs, small: the study's fast replica is the gate, its ladders are the gate's, and the promise shows."""

from __future__ import annotations

import numpy as np
import pytest

from recompress.gate.levels import LADDERS, Past, ladders_of, next_look
from recompress.gate.statistics import ENOUGH_TO_GO_BEYOND, NORMAL, LossEstimate, detectable, draws_for, error_behind, estimate_loss, pair, resample
from studies.gate_many import ALPHA, Ladders, Setting, Sole, adversary, many_candidates, one_run, year
from studies.gate_populations import accuracy
from studies.gate_replica import draw_alike, exact_estimate, lowest_level
from tests.gate.cases import CANDIDATE, case, expected, look, measured, policy, verdict

SMALL = Setting(500, 0.04)


def sample(examples: int, lost: int, won: int) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(examples, dtype=np.int64)
    ours, theirs = ones.copy(), ones.copy()
    ours[:lost], theirs[lost : lost + won] = 0, 0
    return np.stack([ours, ones], 1), np.stack([theirs, ones], 1)


@pytest.mark.parametrize(("examples", "lost", "won"), [(500, 12, 9), (500, 20, 0), (2000, 0, 0), (2000, 61, 40)])
def test_the_replica_is_the_gates_bound_with_draws_without_luck(examples: int, lost: int, won: int) -> None:
    strata = pair(*sample(examples, lost, won), [""] * examples)
    real = estimate_loss(list(strata.values()), resample(strata, draws=40_000, seed=0)[""], accuracy)
    exact = exact_estimate(examples, lost, won, 40_000)
    assert (exact.loss, exact.examples) == (pytest.approx(real.loss), real.examples)
    assert exact.standard_error == pytest.approx(real.standard_error)
    assert exact.acceleration == pytest.approx(real.acceleration, abs=1e-9)
    for level in (0.05, 0.0123, 1e-3, 1e-4):
        assert exact.upper(level) == pytest.approx(real.upper(level), abs=1.6 / examples)
    assert exact.upper(1e-7) == pytest.approx(real.upper(1e-7), rel=0.1)


def test_the_replica_decides_as_the_whole_gate_does() -> None:
    """The candidate of the cases, wrong where the baseline is, and some more: by ``judge`` with a look of that level."""
    wrong = set(range(0, 800, 8))
    rules = policy(baseline={"margin": 0.05}, champion={"margin": 0.3}, loss_budget=0.9, limits=None, at_least=None, draws=10_000)
    for lost in (12, 16, 20):
        models = {"candidate": measured("small", CANDIDATE, wrong | set(range(1, 8 * lost, 8))), "baseline": measured("baseline", "b" * 64, wrong)}
        least = lowest_level(800, 0.05, lost, 0)
        for factor, passes in ((0.5, False), (2.0, True)):
            if least * factor < ALPHA:
                outcome = verdict(**models, policy=rules, expected=expected(rules), look=look(level=least * factor))
                assert outcome.passed == passes, (lost, least, factor, outcome.reasons)


@pytest.mark.parametrize("finalists", [1, 3])
def test_the_ladders_of_the_study_are_those_of_the_gate(finalists: int) -> None:
    rng = np.random.default_rng(0)
    ladders = (Sole if finalists == 1 else Ladders)(4)
    histories: list[list[Past]] = [[] for _ in range(4)]
    for _ in range(12):
        lowest, there = rng.choice([1e-9, 0.004, 0.5], (4, finalists)), np.ones((4, finalists), dtype=bool)
        passed = one_run(ladders, lowest, there)
        for world, history in enumerate(histories):
            for place in range(finalists):
                taken = next_look(
                    history,
                    key=f"{len(history):064d}",
                    model="ner",
                    split="b" * 64,
                    candidate_sha256="c" * 64,
                    ladders=ladders_of(place, finalists),
                    alpha=ALPHA,
                )
                history.append(Past(taken, bool(lowest[world, place] <= taken.level)))
                assert history[-1].proven == passed[world, place]


def test_candidates_that_are_alike_have_the_correlation_that_was_asked_for_and_the_true_loss() -> None:
    rng = np.random.default_rng(0)
    lost, won = draw_alike(rng, (4000, 2), 400, 0.05, 0.03, 0.5)
    assert lost.mean() / 400 == pytest.approx(0.08, abs=1e-3)
    assert won.mean() / 400 == pytest.approx(0.03, abs=1e-3)
    assert np.corrcoef(lost.T)[0, 1] == pytest.approx(0.5, abs=0.06)


def test_whole_recipes_reruns_and_nights_pass_a_bad_candidate_in_five_percent_at_most() -> None:
    """Small, so within what chance allows beside 5 %; ``studies/results/gate_many.md`` has the large one."""
    rows = [*many_candidates(300, SMALL, (1, 20)), *adversary(100, SMALL, reruns=15, candidates=5)]
    assert max(row["gate_percent"] for row in rows) <= 5 + 100 * 2 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean([row["gate_percent"] for row in rows]) <= 5
    assert max(row["each_at_5_percent"] for row in rows) > 40  # and without the ladders it would not hold
    nights = year(100, Setting(500, 0.06), 0.3, (0.0, 1.0, 1.0), nights=40)
    assert nights["false_percent"] <= 5 + 100 * 2 * np.sqrt(0.05 * 0.95 / 100)
    assert nights["passes_percent"]["all nights"] > 90, "the safest keeps its level although two fail every night"


def test_beyond_all_draws_the_bound_goes_on_and_never_back() -> None:
    draws = np.sort(np.random.default_rng(1).normal(0.01, 0.004, 10_000))
    estimate = LossEstimate(0.01, draws, 1000, 0.004, 0.02)
    levels = np.geomspace(0.4, 1e-12, 200)
    bounds = [estimate.upper(float(level)) for level in levels]
    assert bounds == sorted(bounds)
    assert np.isfinite(bounds).all()
    for level in (1e-5, 1e-7):
        assert estimate.upper(level) >= 0.01 + 0.004 * -NORMAL.inv_cdf(level)
        assert estimate.upper(level) > draws[-1]
    few = LossEstimate(0.01, draws[: ENOUGH_TO_GO_BEYOND - 1], 1000, 0.004, 0.02)
    assert few.upper(1e-7) == np.inf
    undefined = LossEstimate(0.01, np.sort(np.concatenate([draws[:-20], [np.inf] * 20])), 1000, 0.004, 0.02)
    assert undefined.upper(1e-7) == np.inf
    assert LossEstimate(0.01, draws, 1000, float("nan"), 0.02).upper(1e-7) == np.inf


def test_a_p_value_below_all_draws_is_where_the_bound_meets_the_margin_too() -> None:
    estimate = exact_estimate(2000, 40, 38, 10_000)
    for margin in (0.02, 0.03, 0.04):
        p = estimate.p_value(margin)
        assert 1e-12 < p < 1 / 10_000 or margin == 0.02
        assert estimate.upper(p * 1.001) < margin <= estimate.upper(p * 0.999)


def test_small_levels_are_given_more_draws_up_to_a_limit() -> None:
    assert draws_for(0.05, 0, 10_000) == 10_000
    assert draws_for(0.0005, 1, 10_000) == 20_000
    assert draws_for(0.0005, 3, 10_000) == 60_000
    assert draws_for(1e-9, 1, 10_000) == 100_000
    assert draws_for(0.05, 1, 500_000) == 500_000  # the policy may ask for more


def test_the_level_of_the_look_is_the_level_of_every_bound_and_of_holms_procedure() -> None:
    outcome = verdict(look=look(level=0.01))
    whole = [loss for loss in outcome.losses if not loss.slice]
    assert {round(1 - loss.confidence, 9) for loss in whole} == {0.01}
    for side in ("baseline", "champion"):
        assert sorted(round(1 - loss.confidence, 9) for loss in outcome.losses if loss.slice and loss.against == side) == [0.005, 0.01]
    usual = verdict()
    assert all(
        late.upper > early.upper and late.smallest_detectable > early.smallest_detectable for late, early in zip(outcome.losses, usual.losses, strict=True)
    )
    assert "judged at 1 %" in next(finding.detail for finding in outcome.findings if finding.check == "look")


def test_the_spread_behind_a_detectable_loss_is_found_again() -> None:
    for error in (0.0, 0.003, 0.02):
        smallest = detectable(error, 0.0123, 0.8, 800)
        assert error_behind(smallest, lambda error: detectable(error, 0.0123, 0.8, 800)) == pytest.approx(error, abs=1e-9)
    assert LADDERS == ("first", "others")
    assert case()["look"].level == case()["policy"].alpha
