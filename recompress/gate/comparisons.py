"""How much worse is the candidate than another model, at most? On the whole test split and, where the policy says so, in every slice.

Slices are strata of the bootstrap and a family of Holm's procedure, once the policy gives them margins. Where it does not, the whole split is one stratum:
that also counts the chance of how many examples of each slice a split holds, and so errs on the side of refusing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf
from typing import Literal

import numpy as np

from recompress.gate.inputs import Scores
from recompress.gate.measured import Measured
from recompress.gate.reasons import passed, refused
from recompress.gate.spread import RecipeEstimate, of_recipe
from recompress.gate.statistics import HolmStep, LossEstimate, Metric, Stratum, draws_for, estimate_loss, holm, joined, mcnemar, pair, resample, together
from recompress.gate.trainings import mean_over
from recompress.policy import Policy
from recompress.records import Finding, Loss

Side = Literal["baseline", "champion"]
WHOLE = ""


def compare(policy: Policy, scores: Scores, candidate: Measured, other: Measured, against: Side, level: float, trainings: int = 1) -> list[Loss]:
    """At ``level``, the error rate of this look: the loss on the whole split, then in every slice that has a margin. Both models were measured on the same examples in the same order;
    of several trainings the counts stand side by side (``recompress.gate.trainings``)."""
    side = getattr(policy, against)
    by_slice: dict[str, float] = side.slices or {}
    draws = draws_for(level, len(by_slice), policy.draws)

    def one(totals: np.ndarray) -> np.ndarray:
        return np.asarray(scores(totals)[policy.metric])

    def metric(totals: np.ndarray) -> np.ndarray:
        return one(totals) if trainings == 1 else np.asarray(mean_over(trainings, scores, policy.metric)(totals)[policy.metric])

    def recipe(estimate: LossEstimate, name: str) -> LossEstimate:
        inside = _inside(candidate, name)
        return of_recipe(estimate, candidate.counts[inside].sum(axis=0), other.counts[inside].sum(axis=0), one, trainings)

    def sums(strata: Mapping[str, Stratum]) -> dict[str, np.ndarray]:
        return resample(strata, draws=draws, seed=policy.seed)

    slices, groups = candidate.slices if by_slice else [WHOLE] * len(candidate.slices), candidate.groups
    strata = pair(candidate.counts, other.counts, slices, groups)
    totals = sums(strata)
    tied = joined(slices, groups)  # a group that spans slices is drawn whole, so that those slices are one stratum of the whole split
    all_strata = strata if tied == list(slices) else pair(candidate.counts, other.counts, tied, groups)
    all_totals = totals if all_strata is strata else sums(all_strata)
    whole = recipe(estimate_loss(list(all_strata.values()), together(all_totals), metric), WHOLE)
    parts = {name: recipe(estimate_loss([strata[name]], totals[name], metric), name) for name in sorted(by_slice)}

    p_value = whole.p_value(side.margin)
    losses = [_loss(policy, metric, candidate, other, against, WHOLE, side.margin, whole, p_value, HolmStep(p_value, level, p_value <= level))]
    p_values = {name: part.p_value(by_slice[name]) for name, part in parts.items()}
    steps = holm(p_values, level)
    return losses + [_loss(policy, metric, candidate, other, against, name, by_slice[name], parts[name], p_values[name], steps[name]) for name in parts]


def _loss(
    policy: Policy,
    metric: Metric,
    candidate: Measured,
    other: Measured,
    against: Side,
    part: str,
    margin: float,
    estimate: LossEstimate,
    p_value: float,
    step: HolmStep,
) -> Loss:
    inside = _inside(candidate, part)
    ours, theirs = candidate.counts[inside], other.counts[inside]
    losses = estimate.losses if isinstance(estimate, RecipeEstimate) else ()
    return Loss(
        against=against,
        slice=part,
        examples=estimate.examples,
        candidate=float(metric(ours.sum(axis=0))),
        other=float(metric(theirs.sum(axis=0))),
        loss=estimate.loss,
        upper=estimate.upper(step.alpha),
        confidence=1 - step.alpha,
        margin=margin,
        p_value=p_value,
        p_adjusted=step.adjusted,
        smallest_detectable=estimate.smallest_detectable(step.alpha, policy.power),
        undefined=estimate.undefined,
        mcnemar_p=_mcnemar(metric(ours), metric(theirs)) if policy.metric == "accuracy" and candidate.groups is None and not losses else None,
        groups=estimate.groups,
        worth=estimate.worth,
        trainings=losses,
    )


def _inside(candidate: Measured, part: str) -> np.ndarray:
    return np.ones(len(candidate.slices), dtype=bool) if part == WHOLE else np.asarray(candidate.slices) == part


def _mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """For examples that are right or wrong as a whole."""
    if not np.isin([ours, theirs], [0.0, 1.0]).all():
        return None
    return mcnemar(int((theirs > ours).sum()), int((ours > theirs).sum()))


def findings_of(policy: Policy, losses: list[Loss], level: float) -> list[Finding]:
    """Two findings for each loss: does its bound lie inside the margin, and could this sample have shown a loss of that size?"""
    return [finding for loss in losses for finding in (_judge_bound(policy, loss, level), _judge_sample(policy, loss))]


def _judge_bound(policy: Policy, loss: Loss, level: float) -> Finding:
    check = _name("loss", loss)
    detail = (
        f"{policy.metric} {loss.candidate:.4f} against {loss.other:.4f} of the {loss.against}{_where(loss)}: "
        f"loss {loss.loss:+.4f}, at most {loss.upper:.4f} ({100 * loss.confidence:.6g} % sure), margin {loss.margin:.4f}{_of_trainings(loss)}"
    )
    if loss.undefined > level or (loss.undefined and isinf(loss.upper)):
        why = f"{policy.metric}{_where(loss)} is undefined in {100 * loss.undefined:.1f} % of draws: too few examples carry anything to find"
        return refused(check, "undefined-metric", why, measured=loss.undefined, limit=level)
    if loss.p_adjusted <= level and loss.upper < loss.margin:
        return passed(check, detail, measured=loss.upper, limit=loss.margin)
    return refused(check, "loss-too-large", detail, measured=loss.upper, limit=loss.margin)


def _judge_sample(policy: Policy, loss: Loss) -> Finding:
    check, detectable = _name("sample", loss), loss.smallest_detectable
    groups = "" if loss.worth is None else f" of {loss.groups:,} groups (worth {loss.worth:,.0f} of equal size)"
    detail = (
        f"{loss.examples:,} examples{_where(loss)}{groups}: a candidate that loses nothing against the {loss.against} would pass {100 * policy.power:.4g} % of the time "
        f"from a margin of {detectable:.4f} on, margin {loss.margin:.4f}"
    )
    more = f"{'more trainings, ' if loss.trainings else ''}more test {'groups' if groups else 'examples'}"
    if detectable <= loss.margin:
        return passed(check, detail, measured=detectable, limit=loss.margin)
    return refused(
        check,
        "sample-too-small-for-margin",
        f"{detail}; take {more} or a wider margin",
        measured=detectable,
        limit=loss.margin,
    )


def _name(what: str, loss: Loss) -> str:
    return f"{'recipe-' if loss.trainings else ''}{what}-against-{loss.against}" + (f"/{loss.slice}" if loss.slice else "")


def _where(loss: Loss) -> str:
    return f" in {loss.slice}" if loss.slice else ""


def _of_trainings(loss: Loss) -> str:
    """The loss of each training and how far they lie apart; nothing where there is one."""
    if not loss.trainings:
        return ""
    each = ", ".join(f"{one:+.4f}" for one in loss.trainings)
    return f"; means over {len(loss.trainings)} trainings, whose losses are {each} (standard deviation {np.std(loss.trainings, ddof=1):.4f})"
