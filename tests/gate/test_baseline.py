"""The baseline judged itself: its floor, and the one behind the last promotion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from recompress.gate.baseline import lower_bound
from recompress.records import Verdict
from tests.gate.cases import ACCEPTED, BASELINE, CANDIDATE, CHAMPION, case, expected, measured, policy, scores, verdict

WEAK = set(range(0, 800, 4))


def outcome(*, floor: float | None = None, accepted: str | None = ACCEPTED, by: str = "", **changes: object) -> Verdict:
    rules = policy(at_least=floor)
    return verdict(policy=rules, expected=expected(rules, accepted_baseline_sha256=accepted, baseline_accepted_by=by), **changes)


def test_a_baseline_that_nobody_trained_lets_nothing_pass() -> None:
    """The case of the issue: a baseline of 40 points, and a candidate that matches it, where 65 had been accepted before."""
    wrong = set(range(800)) - set(range(0, 800, 5)) - set(range(1, 800, 5))  # 40 % right
    weak = {"baseline": measured("baseline", BASELINE, wrong, size_bytes=90e6), "candidate": measured("small", CANDIDATE, wrong)}
    good = measured("accepted", ACCEPTED, set(range(280)))
    verdict_now = outcome(**weak, accepted_baseline=good, champion=measured("champion", CHAMPION, wrong))
    assert verdict_now.reasons == ("weak-baseline",)
    lines = [finding for finding in verdict_now.findings if finding.reason == "weak-baseline"]
    assert f"recompress policy accept-baseline RECIPE {BASELINE} --reason" in lines[0].detail
    assert "train longer, look at the data" in lines[0].detail
    assert outcome(**weak, accepted=None, accepted_baseline=None, champion=measured("champion", CHAMPION, wrong)).passed, (
        "nothing to compare with, and no floor"
    )


def test_the_floor_is_asked_of_both_and_of_their_lower_bounds() -> None:
    def reasons(floor: float) -> tuple[str, ...]:
        return outcome(floor=floor).reasons

    rules, given = policy(), case()
    lowest = {role: lower_bound(rules, scores, given[role], alpha=0.05)[0] for role in ("baseline", "candidate")}
    assert lowest["candidate"] < lowest["baseline"] < 702 / 800
    assert reasons(lowest["candidate"]) == ()
    assert reasons(lowest["candidate"] + 1e-6) == ("candidate-below-floor",)
    assert reasons(lowest["baseline"] + 1e-6) == ("baseline-below-floor", "candidate-below-floor")


def test_the_bound_is_about_that_of_a_binomial_count_and_tighter_for_a_larger_alpha() -> None:
    rules = policy(draws=4000)
    for wrong in (8, 100, 400):
        model = measured("small", CANDIDATE, set(range(wrong)))
        lower, value = lower_bound(rules, scores, model, alpha=0.05)
        exact = binomtest(800 - wrong, 800).proportion_ci(0.9, "exact").low
        assert value == pytest.approx(1 - wrong / 800)
        assert lower == pytest.approx(exact, abs=0.006)
        assert lower < lower_bound(rules, scores, model, alpha=0.1)[0] < value
    assert lower_bound(rules, scores, measured("small", CANDIDATE, set()), alpha=0.05)[0] < 1, "no mistake in 800 is no proof of none"


def test_a_floor_of_the_true_value_passes_in_five_of_a_hundred_samples_at_most() -> None:
    rules, rng, passes = policy(draws=1000, baseline={"margin": 0.05}), np.random.default_rng(0), 0
    for _ in range(150):
        wrong = set(np.flatnonzero(rng.random(400) > 0.85).tolist())
        passes += lower_bound(rules, scores, measured("small", CANDIDATE, wrong, count=400), alpha=0.05)[0] >= 0.85
    assert passes <= 14  # 99 % of binomial counts with p = 0.05 lie below


def test_the_same_baseline_again_is_compared_with_nothing() -> None:
    same = outcome(accepted=BASELINE, accepted_baseline=None, baseline=measured("baseline", BASELINE, WEAK, size_bytes=90e6))
    [finding] = [finding for finding in same.findings if finding.check == "baseline"]
    assert finding.passed


def test_a_persons_word_lets_a_weak_baseline_count_and_stands_in_the_finding() -> None:
    word = "bob accepted it in ledger record 7: a harder split"
    weak = measured("baseline", BASELINE, WEAK, size_bytes=90e6)
    for accepted in (case()["accepted_baseline"], None):
        accepting = outcome(by=word, baseline=weak, accepted_baseline=accepted)
        assert accepting.passed
        assert any(word in finding.detail for finding in accepting.findings)
    assert "baseline-below-floor" in outcome(by=word, floor=0.8, baseline=weak).reasons, "nobody's word lowers the floor"


def test_a_verdict_names_the_accepted_baseline_and_older_ones_keep_their_digest() -> None:
    now = verdict()
    assert now.accepted_baseline_sha256 == ACCEPTED
    assert now.evaluations["accepted_baseline"] == case()["accepted_baseline"].evaluation.digest
    before = outcome(accepted=None, accepted_baseline=None)
    assert "accepted_baseline_sha256" not in before.as_json()
    assert Verdict.model_validate(now.as_json()).digest == now.digest
