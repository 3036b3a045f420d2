"""Who of a recipe's variants is judged on the test split, and in which order: decided on the dev split alone, before the test split is looked at.

Left out are variants that miss a limit of the policy, and those that lose a margin or more on dev already: their looks would be wasted. Among the rest each has its

    room = the least over all comparisons of   (margin - loss) / sqrt(e^2 + 1 / n^2)        e: the loss's standard error by the jackknife, n: examples

(n: what its groups are worth, where the data names them.) How many standard errors lie between what it loses on dev and what it may lose; one example more in n
never counts as certainty. Finalists are the one with the
most room, then by the policy's rule (``choose``) those whose 95 % bound lies inside every margin on dev as well, then the others by their room; the present champion,
where it is one of the variants, comes besides. They are judged in the order of their room, the safest first: ``recompress.gate.levels`` keeps it a ladder of its own.

Dev chooses and promises nothing: training and compression have seen it. No bound of the gate is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot, isfinite

import numpy as np

from recompress.gate.choose import rank_of
from recompress.gate.inputs import Scores
from recompress.gate.limits import check_limits
from recompress.gate.measured import Measured
from recompress.gate.statistics import NORMAL, LossEstimate, Metric, estimate_loss, joined, pair
from recompress.policy import Comparison, Policy
from recompress.records import Selection, Trial


def select(policy: Policy, scores: Scores, candidates: Iterable[Measured], baseline: Measured, champion: Measured | None) -> Selection:
    """The finalists among ``candidates``. Everything was measured on the dev split, the same examples in the same order; speeds are those of the machine."""

    def metric(totals: np.ndarray) -> np.ndarray:
        return np.asarray(scores(totals)[policy.metric])

    others = [(policy.baseline, baseline), *([(policy.champion, champion)] if champion is not None else [])]
    trials = [_try(policy, metric, candidate, baseline, others) for candidate in candidates]
    chosen = _choose(policy, [trial for trial in trials if not trial.reason], champion)
    order = {trial.name: place for place, trial in enumerate(sorted(chosen, key=_safest_first), start=1)}
    return Selection(examples=len(baseline.examples), trials=tuple(_placed(policy, trial, order) for trial in trials))


def _try(policy: Policy, metric: Metric, candidate: Measured, baseline: Measured, others: list[tuple[Comparison, Measured]]) -> Trial:
    given = candidate.evaluation
    trial = Trial(
        name=given.model,
        sha256=given.model_sha256,
        score=given.metrics.get(policy.metric),
        size_bytes=given.metrics.get("size_bytes"),
        latency_ratio=given.metrics.get("latency_ratio"),
    )
    room, inside = float("inf"), True
    for comparison, other in others:
        for margin, estimate in _losses(metric, candidate, other, comparison):
            if other is baseline and trial.loss is None:
                trial = trial.model_copy(update={"loss": estimate.loss})
            here, bound_inside = _room(estimate, margin, policy.alpha)
            room, inside = min(room, here), inside and bound_inside
    missed = [finding for finding in check_limits(policy, given, baseline.evaluation, alpha=policy.alpha) if not finding.passed]
    trial = trial.model_copy(update={"room": room, "inside": inside})
    if missed:
        return trial.model_copy(update={"reason": missed[0].reason, "detail": missed[0].detail})
    if not room > 0:
        detail = f"on dev it loses {trial.loss:+.4f} against the baseline, a margin or more in at least one comparison"
        return trial.model_copy(update={"reason": "loss-too-large", "detail": detail})
    return trial


def _losses(metric: Metric, candidate: Measured, other: Measured, comparison: Comparison) -> Iterable[tuple[float, LossEstimate]]:
    """Margin and loss on the whole dev split and in every slice that has a margin and is in it. No draws: the jackknife is all that is asked."""
    by_slice = comparison.slices or {}
    slices, groups = list(candidate.slices) if by_slice else [""] * len(candidate.slices), candidate.groups
    strata = pair(candidate.counts, other.counts, slices, groups)
    tied = joined(slices, groups)  # a group that spans slices is one thing that may be lost
    whole = strata if tied == slices else pair(candidate.counts, other.counts, tied, groups)
    no_draws = np.zeros((0, 2 * candidate.counts.shape[1]))
    yield comparison.margin, estimate_loss(list(whole.values()), no_draws, metric)
    for name in sorted(by_slice.keys() & strata.keys()):
        yield by_slice[name], estimate_loss([strata[name]], no_draws, metric)


def _room(estimate: LossEstimate, margin: float, alpha: float) -> tuple[float, bool]:
    """Standard errors between loss and margin, minus infinity where the metric is undefined; and whether the plain bound lies inside the margin."""
    worth, z = estimate.worth or estimate.examples, -NORMAL.inv_cdf(alpha)
    room = (margin - estimate.loss) / hypot(estimate.standard_error, 1 / worth)
    score = z * z / (2 * worth)
    return (room if isfinite(room) else float("-inf")), estimate.loss + score + hypot(z * estimate.standard_error, score) < margin


def _choose(policy: Policy, able: list[Trial], champion: Measured | None) -> list[Trial]:
    """As many as the policy judges: the safest, then whom the policy would choose of those inside, then the others by their room. The present champion comes
    besides, so that nothing replaces it that the policy would not choose instead."""
    reigning = [trial for trial in able if champion is not None and trial.sha256 == champion.evaluation.model_sha256]
    safest = sorted(able, key=_safest_first)
    inside = sorted((trial for trial in able if trial.inside), key=lambda trial: (rank_of(policy, trial), trial.name))
    wanted = {trial.name: trial for trial in (*reigning, *safest[:1], *inside, *safest)}
    return list(wanted.values())[: policy.finalists + len(reigning)]


def _safest_first(trial: Trial) -> tuple[float, str]:
    return (-trial.room if trial.room is not None else float("inf"), trial.name)


def _placed(policy: Policy, trial: Trial, order: Mapping[str, int]) -> Trial:
    if trial.name in order:
        place = order[trial.name]
        return trial.model_copy(update={"place": place, "detail": f"finalist {place} of {len(order)}, the safest on dev first"})
    if trial.reason:
        return trial
    rest = f"{policy.finalists} at most are judged (finalists of the policy): the safest on dev, and the {policy.choose} of those that dev would let pass"
    return trial.model_copy(update={"reason": "not-a-finalist", "detail": rest})
