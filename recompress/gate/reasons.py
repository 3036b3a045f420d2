"""Why a candidate can be refused: stable names, and what each means."""

from __future__ import annotations

from recompress.records import Finding

REASONS = {
    # what the gate was given
    "policy-changed": "the policy is not the one whose digest was recorded before measuring",
    "missing-baseline": "the baseline was not measured",
    "missing-champion": "there is a champion, but it was not measured",
    "accepted-baseline-missing": "the baseline behind the last promotion cannot be compared with this one on the present test split",
    "unexpected-baseline": "a baseline behind an earlier promotion was measured where nothing was promoted before",
    "unexpected-champion": "a champion was measured where there should be none",
    "stale-evaluation": "the evaluation speaks of another model than the one to be judged",
    "different-dataset": "the evaluation was made on other data",
    "predictions-unpinned": "the evaluation does not say which predictions it was computed from",
    "empty-evaluation": "no test example was measured",
    "short-evaluation": "fewer or more examples were measured than the test split holds",
    "mismatched-lengths": "examples, slices, groups and counts are not equally many",
    "repeated-examples": "an example stands in the evaluation more than once",
    "different-examples": "the models were measured on different examples, or on the same in another order",
    "groups-missing": "the predictions do not name the groups that the test split has",
    "different-counts": "the models' counts have different columns",
    "bad-counts": "a count is negative or not a number",
    "missing-metric": "the metric of the policy was not measured",
    "not-a-number": "a measured value is NaN or infinite",
    "impossible-value": "a measured value is zero or negative where it cannot be",
    "metric-mismatch": "the metric does not follow from the predictions",
    # whether the test split may be looked at
    "look-missing": "no look at the test split for this candidate stands in the ledger",
    "look-mismatch": "the look in the ledger is for another candidate, another test split or another level than the policy allows",
    "look-refused-before": "this very comparison was judged before and refused; a look is not had twice",
    "not-a-finalist": "the candidate was not named as a finalist before the test split was looked at",
    # how much was measured
    "too-few-examples": "fewer examples than the policy asks for",
    "missing-trainings": "fewer or more trainings were measured than the policy asks for",
    "repeated-training": "two trainings gave the same baseline: one was counted twice",
    "too-few-groups": "the test examples come from fewer groups than a bound can be drawn from",
    "missing-slice": "a slice of the policy is not in the data",
    "slice-without-margin": "a slice of the data has no margin in the policy",
    "undefined-metric": "the metric had an empty denominator in too many bootstrap draws",
    "sample-too-small-for-margin": "a candidate that loses nothing would pass too rarely at this margin",
    # what was measured
    "loss-too-large": "the upper bound of the loss does not lie inside the margin",
    "baseline-below-floor": "the lower bound of the baseline's metric does not reach the policy's floor",
    "candidate-below-floor": "the lower bound of the candidate's metric does not reach the policy's floor",
    "weak-baseline": "the baseline may be worse than the one behind the last promotion by more than the margin",
    "first-promotion-not-allowed": "there is no champion to compare with, and the policy does not allow a first promotion",
    "spent-loss-missing": "it is not known what earlier promotions have lost",
    "loss-budget-spent": "this loss and that of earlier promotions together exceed the policy's budget",
    "size-missing": "the size on disk was not measured",
    "size-too-large": "the model is larger than the policy allows",
    "latency-missing": "the latency was not measured",
    "latency-too-high": "the model is not surely as fast as the policy asks",
    "throughput-too-low": "the model does not surely answer as many texts a second as the policy asks",
    "rounds-missing": "what the single rounds gave is not there, so that no bound can be taken",
    "too-few-rounds": "so few rounds were measured that no bound can be as sure as the policy asks",
    "machine-too-busy": "the rounds differ so much, or other work was so much, that nobody can tell on which side of the limit the model lies",
    "other-machine": "the limit holds for another machine than the one that was measured on",
    "memory-missing": "the memory was not measured",
    "memory-too-high": "the model needs more memory than the policy allows",
}


def passed(check: str, detail: str, *, measured: float | None = None, limit: float | None = None) -> Finding:
    return Finding(check=check, passed=True, measured=measured, limit=limit, detail=detail)


def refused(check: str, reason: str, detail: str, *, measured: float | None = None, limit: float | None = None) -> Finding:
    """A finding against the candidate. Raises ``KeyError`` for a reason that ``REASONS`` does not know."""
    if reason not in REASONS:
        raise KeyError(reason)
    return Finding(check=check, passed=False, reason=reason, measured=measured, limit=limit, detail=detail)
