"""Is there anything worth keeping? A weak baseline is easily matched, so it is judged itself: by a floor, and against the baseline behind the last promotion.

floor       lower bound of the metric = 1 - upper bound of (1 - metric), by the same bootstrap; baseline and candidate must both reach it, each at ``alpha``.
            Both are needed, so that the chance of passing with either truly below the floor is ``alpha`` at most without any correction
            (intersection-union test: Berger 1982, Technometrics 24:295-300).
baseline    the upper bound of its loss against the last accepted baseline must lie inside ``baseline.margin``, in all and in every slice with a margin:
            on the same examples, as everything that is compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from recompress.gate.comparisons import WHOLE, compare
from recompress.gate.inputs import Scores
from recompress.gate.measured import Expected, Measured
from recompress.gate.reasons import passed, refused
from recompress.gate.statistics import draws_for, estimate_loss, pair, resample, together
from recompress.gate.trainings import Again
from recompress.policy import Policy
from recompress.records import Finding, Loss

BELOW = {"baseline": "baseline-below-floor", "candidate": "candidate-below-floor"}


def check_floor(policy: Policy, scores: Scores, models: Mapping[str, Measured | None], *, alpha: float) -> Iterator[Finding]:
    """A finding each for baseline and candidate, where the policy has a floor. ``alpha`` is the error rate of each bound."""
    for role, reason in BELOW.items():
        model = models.get(role)
        if policy.at_least is None or model is None:
            continue
        lower, value = lower_bound(policy, scores, model, alpha=alpha)
        detail = f"{policy.metric} of the {role} is {value:.4f}, at least {lower:.4f} ({100 * (1 - alpha):.4g} % sure), {policy.at_least:.4f} asked for"
        if lower >= policy.at_least:
            yield passed(f"floor/{role}", detail, measured=lower, limit=policy.at_least)
        else:
            way_out = "train longer or look at the data" if role == "baseline" else "compress less"
            yield refused(f"floor/{role}", reason, f"{detail}; {way_out}", measured=lower, limit=policy.at_least)


def lower_bound(policy: Policy, scores: Scores, model: Measured, *, alpha: float) -> tuple[float, float]:
    """The one-sided lower bound of a model's metric, and the metric: what it loses against an ideal model whose metric is 1, bounded as any loss is.

    Minus infinity where the draws cannot tell.
    """
    counts = np.asarray(model.counts, dtype=np.float64)
    ideal = np.full_like(counts, -1.0)  # a mark: no count is negative

    def metric(totals: np.ndarray) -> np.ndarray:
        return np.where(totals[..., 0] < 0, 1.0, np.asarray(scores(np.abs(totals))[policy.metric]))

    strata = pair(counts, ideal, [WHOLE] * len(model.slices), model.groups)  # one stratum, which errs on the side of refusing
    totals = resample(strata, draws=draws_for(alpha, 1, policy.draws), seed=policy.seed)
    estimate = estimate_loss(list(strata.values()), together(totals), metric)
    return 1.0 - estimate.upper(alpha), 1.0 - estimate.loss


def check_baseline(policy: Policy, scores: Scores, baseline: Measured, accepted: Measured | None, expected: Expected, *, alpha: float) -> Iterator[Finding]:
    """Findings about the baseline beside the one behind the last promotion; nothing where nothing was promoted before, or it is the same model."""
    if expected.accepted_baseline_sha256 is None:
        return
    if expected.accepted_baseline_sha256 == expected.baseline_sha256:
        yield passed("baseline", "the baseline is the one behind the last promotion")
        return
    if accepted is None:
        if expected.baseline_accepted_by:
            yield passed("baseline", f"the baseline was not compared with the one behind the last promotion; {expected.baseline_accepted_by}")
        return  # else ``check_inputs`` has refused already
    for loss in compare(policy, scores, baseline, accepted, "baseline", alpha):
        yield _against_accepted(policy, loss, expected, alpha)


def check_again(
    policy: Policy, scores: Scores, baseline: Measured, accepted: Measured | None, again: Sequence[Again], expected: Expected, *, alpha: float
) -> Iterator[Finding]:
    """The same of each further training: a baseline that failed is easily matched, and would hide in the mean what the first training lost."""
    same = expected.accepted_baseline_sha256 == expected.baseline_sha256
    for number, training in enumerate(again, start=2):
        findings = [*check_floor(policy, scores, {"baseline": training.baseline, "candidate": training.candidate}, alpha=alpha)]
        if same:  # held against the very baseline of the first training, which is the accepted one
            findings += [_against_accepted(policy, loss, expected, alpha) for loss in compare(policy, scores, training.baseline, baseline, "baseline", alpha)]
        else:
            findings += check_baseline(policy, scores, training.baseline, accepted, expected, alpha=alpha)
        yield from (finding.model_copy(update={"check": f"{finding.check}/training {number}"}) for finding in findings)


def _against_accepted(policy: Policy, loss: Loss, expected: Expected, alpha: float) -> Finding:
    check, where = ("baseline", "") if not loss.slice else (f"baseline/{loss.slice}", f" in {loss.slice}")
    detail = (
        f"{policy.metric} of the baseline {loss.candidate:.4f} against {loss.other:.4f} of the one behind the last promotion{where}: "
        f"at most {loss.upper:.4f} worse ({100 * loss.confidence:.4g} % sure), margin {loss.margin:.4f}"
    )
    if loss.p_adjusted <= alpha and loss.upper < loss.margin:
        return passed(check, detail, measured=loss.upper, limit=loss.margin)
    if expected.baseline_accepted_by:
        return passed(check, f"{detail}; {expected.baseline_accepted_by}", measured=loss.upper, limit=loss.margin)
    return refused(check, "weak-baseline", f"{detail}; {ways_out(expected)}", measured=loss.upper, limit=loss.margin)


def ways_out(expected: Expected) -> str:
    """What can be done about a baseline that is worse, or cannot be compared."""
    return f"train longer, look at the data, or let a person accept it: recompress policy accept-baseline RECIPE {expected.baseline_sha256} --reason '…'"
