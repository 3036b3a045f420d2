"""May these measurements be compared at all? Every doubt is a refusal with a name; nothing is repaired, dropped or filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import isfinite

import numpy as np
from jaxtyping import Float, Num

from recompress.gate.groups import check_enough, check_named
from recompress.gate.measured import Expected, Measured
from recompress.gate.reasons import passed, refused
from recompress.policy import Policy
from recompress.records import Finding

Scores = Callable[[Num[np.ndarray, "*draws k"]], Mapping[str, Float[np.ndarray, "*draws"]]]
"""A benchmark's metrics from summed counts: ``lambda totals: benchmark.metrics(totals, labels)``."""

ROUNDING = 1e-9
"""Largest difference between a metric and what its counts give that is called the same."""


def check_inputs(policy: Policy, scores: Scores, models: Mapping[str, Measured | None], expected: Expected) -> list[Finding]:
    """``models`` are the candidate, the baseline and the champion by role. One passed finding when nothing is wrong, else one for each thing that is."""
    findings = [*_policy(policy, expected), *_roles(models, expected)]
    for role, model in ((_word(role), model) for role, model in models.items()):
        if model is not None:
            findings += check_one(role, model, policy, scores, expected)
    candidate = models["candidate"]
    if not findings and candidate is not None:
        findings += [*_pairing(models), *_sample(policy, models["candidate"]), *check_enough(policy, candidate)]
    count = expected.examples
    return findings or [passed("inputs", f"{count:,} test examples, the same for {', '.join(_word(role) for role, model in models.items() if model)}")]


def _word(role: str) -> str:
    return role.replace("_", " ")


def check_one(role: str, model: Measured, policy: Policy, scores: Scores, expected: Expected) -> list[Finding]:
    """What is wrong with one model's measurements by themselves."""
    return [*_identity(role, model, expected), *(list(_shape(role, model, expected)) or _numbers(role, model, policy, scores))]


def _policy(policy: Policy, expected: Expected) -> Iterator[Finding]:
    if policy.sha256 != expected.policy_sha256:
        recorded = f"{expected.policy_sha256[:12]}… was recorded before measuring"
        yield refused("policy", "policy-changed", f"the policy is {policy.sha256[:12]}…, but {recorded}; measure again under the new one")


def _roles(models: Mapping[str, Measured | None], expected: Expected) -> Iterator[Finding]:
    if models["baseline"] is None:
        yield refused("baseline", "missing-baseline", "the baseline was not measured")
    if models["champion"] is None and expected.champion_sha256 is not None:
        yield refused("champion", "missing-champion", f"the champion {expected.champion_sha256[:12]}… was not measured on this test split")
    last = expected.accepted_baseline_sha256
    if models["accepted_baseline"] is not None and last is None:
        yield refused("accepted baseline", "unexpected-baseline", "a baseline behind an earlier promotion was given, but nothing was promoted before")
    if models["accepted_baseline"] is None and last not in (None, expected.baseline_sha256) and not expected.baseline_accepted_by:
        ways = f"put its files back, or let a person accept the new one: recompress policy accept-baseline RECIPE {expected.baseline_sha256} --reason '…'"
        lost = f"the baseline {str(last)[:12]}… behind the last promotion could not be measured on this test split; {ways}"
        yield refused("accepted baseline", "accepted-baseline-missing", lost)
    if models["champion"] is not None and expected.champion_sha256 is None:
        yield refused("champion", "unexpected-champion", f"{models['champion'].evaluation.model} was given as champion, but there is none")


def _identity(role: str, model: Measured, expected: Expected) -> Iterator[Finding]:
    """Does the evaluation speak of this model, this data and these predictions?"""
    given, wanted = model.evaluation, getattr(expected, f"{role.replace(' ', '_')}_sha256")
    if wanted is not None and given.model_sha256 != wanted:
        yield refused(role, "stale-evaluation", f"the {role} is {wanted[:12]}…, its evaluation speaks of {given.model_sha256[:12]}…; measure it again")
    if given.dataset_sha256 != expected.dataset_sha256:
        data = f"{given.dataset_sha256[:12]}…, the data is {expected.dataset_sha256[:12]}…"
        yield refused(role, "different-dataset", f"the {role} was measured on {data}; measure it again")
    if not given.predictions_sha256:
        yield refused(role, "predictions-unpinned", f"the evaluation of the {role} names no digest of its predictions")


def _shape(role: str, model: Measured, expected: Expected) -> Iterator[Finding]:
    count = len(model.examples)
    lengths = {len(model.slices), len(model.references), model.counts.shape[0] if model.counts.ndim == 2 else -1}
    lengths |= set() if model.groups is None else {len(model.groups)}
    if not count:
        yield refused(role, "empty-evaluation", f"no test example of the {role} was measured")
    elif lengths != {count}:
        yield refused(
            role, "mismatched-lengths", f"the {role} has {count:,} examples, but {len(model.slices):,} slices and counts of shape {model.counts.shape}"
        )
    elif count != expected.examples:
        yield refused(
            role,
            "short-evaluation",
            f"{count:,} examples of the {role} were measured, the test split holds {expected.examples:,}",
            measured=float(count),
            limit=float(expected.examples),
        )
    elif len(set(model.examples)) < count:
        name, times = Counter(model.examples).most_common(1)[0]
        yield refused(role, "repeated-examples", f"example {name!r} of the {role} was counted {times} times")
    elif not (np.isfinite(model.counts).all() and (model.counts >= 0).all()):
        yield refused(role, "bad-counts", f"the counts of the {role} hold a negative value or NaN")
    else:
        yield from check_named(role, model, expected)


def _numbers(role: str, model: Measured, policy: Policy, scores: Scores) -> list[Finding]:
    """Is the metric there, finite, and what its counts give?"""
    name, value = policy.metric, model.evaluation.metrics.get(policy.metric)
    again = scores(model.counts.sum(axis=0)).get(name)
    if value is None or again is None:
        return [refused(role, "missing-metric", f"{name} of the {role} was not measured; known are {', '.join(sorted(model.evaluation.metrics)) or 'none'}")]
    if not (isfinite(value) and isfinite(float(again))):
        return [refused(role, "not-a-number", f"{name} of the {role} is {value}, and {float(again)} from its predictions", measured=value)]
    if abs(value - float(again)) > ROUNDING:
        return [refused(role, "metric-mismatch", f"{name} of the {role} is {value:.6f}, but its predictions give {float(again):.6f}", measured=value)]
    return []


def _pairing(models: Mapping[str, Measured | None]) -> Iterator[Finding]:
    candidate = models["candidate"]
    assert candidate is not None
    pairing = candidate.pairing_sha256
    for role, model in models.items():
        if model is None or model is candidate:
            continue
        if model.pairing_sha256 != pairing:
            yield refused(role, "different-examples", f"candidate and {role} were measured on different examples, references or slices, or in another order")
        elif model.counts.shape != candidate.counts.shape:
            yield refused(role, "different-counts", f"the {role} has {model.counts.shape[1]} counts an example, the candidate {candidate.counts.shape[1]}")


def _sample(policy: Policy, candidate: Measured | None) -> Iterator[Finding]:
    """Enough examples in all, and in every slice that is judged; every slice of the data judged, once one is."""
    assert candidate is not None
    count, least = len(candidate.examples), policy.min_examples
    if count < least.overall:
        yield refused(
            "examples", "too-few-examples", f"{count:,} test examples, {least.overall:,} are asked for", measured=float(count), limit=float(least.overall)
        )
    there = Counter(candidate.slices)
    for side in ("baseline", "champion"):
        wanted = getattr(policy, side).slices
        for name in sorted(wanted or ()):
            if name not in there:
                yield refused(
                    f"slice-{side}/{name}", "missing-slice", f"slice {name!r} has a margin in the policy, but the data has only {', '.join(sorted(there))}"
                )
            elif there[name] < least.per_slice:
                few = f"{there[name]:,} test examples of {name}, {least.per_slice:,} are asked for"
                yield refused(f"slice-{side}/{name}", "too-few-examples", few, measured=float(there[name]), limit=float(least.per_slice))
        for name in sorted(there.keys() - wanted.keys()) if wanted else ():
            yield refused(f"slice-{side}/{name}", "slice-without-margin", f"slice {name!r} of the data has no margin under {side}.slices of the policy")
