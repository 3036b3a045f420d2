"""Whole verdicts: what passes, what is said, what is remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recompress.gate import comparisons, judge
from recompress.gate.statistics import estimate_loss, pair, resample
from recompress.records import Loss, Verdict
from tests.gate.cases import CANDIDATE, COUNT, case, expected, look, measured, policy, scores, verdict


def loss_in(outcome: Verdict, against: str, part: str = "") -> Loss:
    return next(loss for loss in outcome.losses if (loss.against, loss.slice) == (against, part))


def test_a_good_candidate_passes_and_everything_is_said() -> None:
    outcome = verdict()
    assert outcome.passed
    assert outcome.reasons == ()
    checks = [finding.check for finding in outcome.findings]
    pairs = [f"{what}-against-{side}{part}" for side in ("baseline", "champion") for part in ("", "/hau", "/swa") for what in ("loss", "sample")]
    own = ["floor/baseline", "floor/candidate", "baseline", "baseline/hau", "baseline/swa"]
    limits = ["loss-budget", "size", "times-smaller", "times-faster", "latency-p95", "throughput", "memory", "steady-memory"]
    assert checks == ["inputs", "look", *pairs, *own, *limits]
    whole = loss_in(outcome, "baseline")
    assert whole.loss == pytest.approx(2 / COUNT)
    assert (whole.candidate, whole.other) == (700 / 800, 702 / 800)
    assert whole.loss < whole.upper < whole.margin == 0.05
    assert whole.mcnemar_p == pytest.approx(0.6875)  # 4 lost, 2 won
    assert outcome.smallest_detectable_loss == max(loss.smallest_detectable for loss in outcome.losses if not loss.slice)
    assert outcome.spent_loss_after == pytest.approx(0.01 + loss_in(outcome, "champion").upper)


def test_the_same_inputs_give_the_same_verdict_and_it_survives_the_ledger() -> None:
    outcome = verdict()
    assert verdict().digest == outcome.digest
    assert Verdict.model_validate(outcome.as_json()) == outcome
    refused = verdict(candidate=measured("small", CANDIDATE, set(), size_bytes=float("nan")))
    assert Verdict.model_validate(refused.as_json()).digest == refused.digest


@pytest.mark.parametrize("role", ["candidate", "baseline", "champion"])
def test_a_verdict_names_the_evaluations_that_it_was_made_from(role: str) -> None:
    usual, given_now = verdict(), case()
    changed = given_now[role].evaluation.model_copy(update={"metrics": given_now[role].evaluation.metrics | {"parameters": 7.0}})
    other = verdict(**{role: replace(given_now[role], evaluation=changed)})
    assert other.evaluations[role] == changed.digest != usual.evaluations[role]
    assert other.digest != usual.digest


def test_a_bad_candidate_is_refused_for_its_loss() -> None:
    outcome = verdict(candidate=measured("small", CANDIDATE, set(range(0, 800, 5))))
    assert outcome.reasons[0] == "loss-too-large"
    finding = next(finding for finding in outcome.findings if finding.check == "loss-against-baseline")
    assert finding.limit == 0.05 < finding.measured
    assert "margin 0.0500" in finding.detail


def test_a_loss_inside_the_margin_whose_bound_is_not_is_refused() -> None:
    wrong = set(range(0, 768, 8)) | {3, 777}
    candidate = measured("small", CANDIDATE, wrong | set(range(2, 770, 24)))
    outcome = verdict(candidate=candidate)
    whole = loss_in(outcome, "baseline")
    assert whole.loss == pytest.approx(0.04)
    assert whole.loss < whole.margin < whole.upper
    assert {finding.check: finding.reason for finding in outcome.findings if not finding.passed}["loss-against-baseline"] == "loss-too-large"


def test_one_language_cannot_be_traded_for_another() -> None:
    """Much better on one slice, much worse on the other: the average hides it, the slice does not."""
    wrong = set(range(0, 800, 8))
    worse = {i for i in wrong if i >= 400} | {i + 1 for i in range(400, 800, 8)}
    outcome = verdict(candidate=measured("small", CANDIDATE, worse), baseline=measured("baseline", "b" * 64, wrong, size_bytes=90e6))
    assert loss_in(outcome, "baseline").loss == pytest.approx(0)
    assert loss_in(outcome, "baseline", "swa").loss == pytest.approx(0.125)
    assert [(loss.candidate, loss.other) for loss in outcome.losses[:3]] == [(0.875, 0.875), (1.0, 0.875), (0.75, 0.875)]
    refused = [finding.check for finding in outcome.findings if not finding.passed]
    assert "loss-against-baseline" not in refused
    assert "loss-against-baseline/swa" in refused
    assert "loss-against-baseline/hau" not in refused


def test_holm_asks_more_of_the_slices_together_than_of_each_alone() -> None:
    outcome = verdict()
    levels = sorted(round(1 - loss_in(outcome, "baseline", part).confidence, 6) for part in ("hau", "swa"))
    assert levels == [0.025, 0.05]
    assert all(loss.p_adjusted >= loss.p_value for loss in outcome.losses)


def test_the_bound_of_a_slice_is_that_of_the_level_at_which_holm_decides_it() -> None:
    given_now, outcome = case(), verdict()
    strata = pair(given_now["candidate"].counts, given_now["baseline"].counts, given_now["candidate"].slices)
    totals = resample(strata, draws=1000, seed=0)
    for part in ("hau", "swa"):
        loss = loss_in(outcome, "baseline", part)
        estimated = estimate_loss([strata[part]], totals[part], lambda counts: np.asarray(scores(counts)["accuracy"]))
        assert loss.upper == estimated.upper(1 - loss.confidence)
        assert loss.p_value == estimated.p_value(0.08)


def test_the_policy_says_how_often_and_from_which_seed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def spy(strata: Any, *, draws: int, seed: int) -> Any:
        asked.add((draws, seed))
        return resample(strata, draws=draws, seed=seed)

    monkeypatch.setattr(comparisons, "resample", spy)
    rules = policy(draws=1500, seed=7)
    verdict(policy=rules, expected=expected(rules))
    assert asked == {(1500, 7)}


def test_examples_that_are_partly_right_have_no_mcnemar() -> None:
    assert comparisons._mcnemar(np.array([1.0, 0.5]), np.array([0.0, 1.0])) is None
    assert comparisons._mcnemar(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])) == 1


def test_what_is_exactly_at_its_limit_passes() -> None:
    rules = policy(limits={"size_bytes": 20_000_000, "times_smaller": 4.5, "times_faster": 3.0, "peak_memory_bytes": 300_000_000})
    assert verdict(policy=rules, expected=expected(rules)).passed


def test_the_champion_has_a_margin_of_its_own() -> None:
    better = measured("champion", "a" * 64, set(range(0, 800, 20)))
    outcome = verdict(champion=better)
    refused = {finding.check: finding.reason for finding in outcome.findings if not finding.passed}
    assert refused["loss-against-champion"] == "loss-too-large"
    assert "loss-against-baseline" not in refused


def first(**changes: Any) -> Verdict:
    rules = changes.pop("policy", policy(first_promotion="allowed"))
    return verdict(policy=rules, champion=None, expected=expected(rules, champion_sha256=None), **changes)


def test_the_first_promotion_needs_the_policys_word() -> None:
    outcome = first(spent_loss=None)
    assert outcome.passed
    assert outcome.first_promotion
    assert outcome.spent_loss_after == 0
    assert first(policy=policy(), spent_loss=None).reasons == ("first-promotion-not-allowed",)


def test_taking_the_alias_away_does_not_wipe_out_what_was_spent() -> None:
    assert first(spent_loss=0.07).spent_loss_after == 0.07
    assert first(spent_loss=0.11).reasons == ("loss-budget-spent",)


def test_a_spent_budget_refuses_and_a_proven_gain_restores_it() -> None:
    assert verdict(spent_loss=0.099).reasons == ("loss-budget-spent",)
    gain = verdict(spent_loss=0.05, candidate=measured("small", CANDIDATE, set(range(0, 800, 40))))
    assert gain.passed
    assert gain.spent_loss_after is not None
    assert 0 <= gain.spent_loss_after < 0.05
    assert verdict(spent_loss=0.0, candidate=measured("small", CANDIDATE, set(range(0, 800, 40)))).spent_loss_after == 0


def test_the_champion_judged_again_is_charged_nothing() -> None:
    champion = measured("small", CANDIDATE, set(range(0, 800, 8)))
    outcome = verdict(candidate=champion, champion=champion, spent_loss=0.0999, expected=expected(policy(), champion_sha256=CANDIDATE))
    assert outcome.passed
    assert outcome.spent_loss_after == 0.0999


def test_a_policy_edited_after_measuring_is_refused() -> None:
    before, after = policy(), policy(baseline={"margin": 0.06})
    outcome = verdict(policy=after, expected=expected(before))
    assert outcome.reasons == ("policy-changed",)
    assert outcome.losses == ()
    assert before.sha256[:12] in outcome.findings[0].detail


def test_twenty_slightly_losing_recompressions_stay_in_the_budget() -> None:
    """Each variant truly loses 0.4 points, too little for any one comparison to see; the whole gate judges each against the champion of its time."""
    slices = {"hau": 0.4, "swa": 0.4}
    rules = policy(at_least=None, baseline={"margin": 0.3}, champion={"margin": 0.03, "slices": slices}, loss_budget=0.05, limits=None)
    n, step, churn = 2000, 0.004, 0.01
    for seed in range(2):
        rng, right, spent, promoted, refusals = np.random.default_rng(seed), 0.8, 0.0, 0, set()
        for _ in range(20):
            champion, u = rng.random(n) < right, rng.random(n)
            candidate = np.where(champion, u >= (step + churn) / right, u < churn / (1 - right))
            models = {
                "candidate": measured("small", CANDIDATE, set(np.flatnonzero(~candidate).tolist()), count=n),
                "baseline": measured("baseline", "b" * 64, set(np.flatnonzero(rng.random(n) > 0.8).tolist()), count=n),
                "champion": measured("champion", "a" * 64, set(np.flatnonzero(~champion).tolist()), count=n),
            }
            wanted = expected(rules, examples=n, accepted_baseline_sha256=None)
            outcome = judge(rules, scores, **models, accepted_baseline=None, spent_loss=spent, expected=wanted, look=look())
            if outcome.passed:
                assert outcome.spent_loss_after is not None
                spent, right, promoted = outcome.spent_loss_after, right - step, promoted + 1
            refusals |= set(outcome.reasons)
        assert 0.8 - right <= 0.05
        assert promoted >= 2
        assert refusals == {"loss-budget-spent"}


@st.composite
def answers(draw: st.DrawFn) -> set[int]:
    return draw(st.sets(st.integers(0, COUNT - 1), max_size=60)) | set(range(draw(st.integers(0, 200))))


@given(answers(), answers(), answers(), st.floats(0, 0.2))
@settings(max_examples=30, deadline=None)
def test_a_verdict_that_passes_has_every_bound_inside_its_margin(ours: set[int], theirs: set[int], champions: set[int], spent: float) -> None:
    models = {"candidate": measured("small", CANDIDATE, ours), "baseline": measured("baseline", "b" * 64, theirs, size_bytes=90e6)}
    rules = policy(at_least=None)
    first = expected(rules, accepted_baseline_sha256=None)
    outcome = verdict(**models, champion=measured("champion", "a" * 64, champions), spent_loss=spent, accepted_baseline=None, policy=rules, expected=first)
    assert outcome.passed == (not outcome.reasons)
    assert len(outcome.losses) == 6
    inside = all(loss.upper < loss.margin and loss.p_adjusted <= 0.0500001 and loss.smallest_detectable <= loss.margin for loss in outcome.losses)
    in_budget = spent + loss_in(outcome, "champion").upper <= 0.1
    assert outcome.passed == (inside and in_budget)


def test_a_verdict_cannot_be_written_that_passes_by_default() -> None:
    good = verdict().as_json()
    bad = {"check": "size", "passed": False, "reason": "size-too-large", "detail": "too large"}
    for findings in ([], [*good["findings"], bad]):
        with pytest.raises(ValidationError, match="every one of them passed"):
            Verdict.model_validate(good | {"findings": findings})
    with pytest.raises(ValidationError, match="names its reason"):
        Verdict.model_validate(good | {"passed": False, "findings": [bad | {"reason": ""}]})
