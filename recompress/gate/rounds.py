"""Limits on speed and memory, judged by a bound over interleaved rounds: one figure of one afternoon is no proof.

Of n rounds, sorted, the k-th smallest lies above the median with probability P(Binomial(n, 1/2) < k) at most, whatever the distribution is. So with

    k = the largest for which P(Binomial(n, 1/2) < k) <= alpha
    lower bound of the median = k-th smallest          upper bound = k-th largest

one is wrong about the median in ``alpha`` of all cases at most (the sign test turned round: Conover 1999, "Practical Nonparametric Statistics", 3rd ed., ch. 3).
With 5 to 7 rounds that is the worst of them at 95 %, with 8 to 10 the second worst, from 11 on the third.

The rounds must be alike for that. A machine that does other work makes them unlike, and passing time unfair: longer answers are interrupted oftener, so that a
small model looks faster than it is (int8 beside fp32, two cores with some 16 busy processes: 18 to 65 times by passing time, 5.2 to 5.5 by the processor's). Then the
median's bound is not believed, and every single round has to be on the right side of the limit, by passing time and by the time of the processor. Where some are and
some are not, nobody can tell: ``machine-too-busy``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, comb, isfinite, log2
from typing import NamedTuple

import numpy as np

from recompress.gate.reasons import passed, refused
from recompress.policy import HOW, Limits, Policy
from recompress.records import Evaluation, Finding

TELLING = 0.10
"""Bounds that lie further apart than this share of the median tell of the machine and not of the model."""
PROCESSOR_SHARE = 0.90
"""The least share of its time in which a measuring process must have had a processor."""
STEAL_SHARE = 0.02
"""The most that the host may have given to other machines."""
DRIFT = 0.10
"""The most by which the first half of the rounds may differ from the second, as a share of the median."""


class Limit(NamedTuple):
    """A limit of a policy, and what it is called where it is not kept."""

    check: str
    key: str
    reason: str
    more: bool
    """Whether more is better."""
    worked: str
    """The same by the time of the processor, for a busy machine; empty for what other work does not change."""
    unit: str

    @property
    def of_speed(self) -> bool:
        return bool(self.worked)


LIMITS = {
    "times_faster": Limit("times-faster", "latency_ratio", "latency-too-high", True, "processor_ratio", "times as fast as the baseline"),
    "times_faster_writing": Limit(
        "times-faster-writing", "decode_ratio", "latency-too-high", True, "decode_processor_ratio", "times as fast at writing as the baseline"
    ),
    "latency_p95_ms": Limit("latency-p95", "latency_p95_ms", "latency-too-high", False, "processor_p95_ms", "ms for one of the longer texts"),
    "throughput_per_s": Limit("throughput", "throughput_per_s", "throughput-too-low", True, "processor_per_s", "texts a second"),
    "peak_memory_bytes": Limit("memory", "peak_memory_bytes", "memory-too-high", False, "", "bytes of memory at most"),
    "steady_memory_bytes": Limit("steady-memory", "steady_memory_bytes", "memory-too-high", False, "", "bytes of memory while it serves"),
}
"""By the dial's name in ``Policy.limits``. ``latency_p95_ms`` and ``throughput_per_s`` hold on the machine that the policy names."""
WHERE = {"runtime": "full precision in the same runtime", "torch": "torch", "onnx": "full precision in ONNX Runtime"}
ABSOLUTE = ("latency_p95_ms", "throughput_per_s")


def check_rounds(limits: Limits | None, candidate: Evaluation, dial: str, *, alpha: float) -> Iterator[Finding]:
    """The finding about one limit on speed or memory, a dial of ``LIMITS``; none where the policy has no such limit. ``alpha`` is the error rate of its bound."""
    limit = getattr(limits, dial, None)
    if limits is not None and limit is not None:
        rule = rule_of(limits, dial)
        trouble = _machine(rule, limits, candidate) if dial in ABSOLUTE else None
        yield trouble or _usable(rule, candidate, alpha) or _judged(rule, float(limit), candidate, alpha)


def rule_of(limits: Limits | None, dial: str) -> Limit:
    """The limit as the policy means it: which baseline a ratio compares with, and whether caches are hot."""
    rule = LIMITS[dial]
    if dial not in HOW["against"] or limits is None:
        return rule
    end = {"runtime": "_runtime", "torch": "", "onnx": "_onnx"}[limits.against]
    begins, caches = ("cold_", ", caches cold") if limits.caches == "cold" and dial in HOW["caches"] else ("", "")
    unit = f"{rule.unit} in {WHERE[limits.against]}{caches}"
    return rule._replace(key=f"{begins}{rule.key}{end}", worked=f"{begins}{rule.worked}{end}", unit=unit)


def too_busy(policy: Policy, evaluation: Evaluation) -> str:
    """What ``machine-too-busy`` says of the first limit that cannot be told from these rounds; empty where each can be told, or is refused for another reason."""
    findings = (finding for dial in LIMITS for finding in check_rounds(policy.limits, evaluation, dial, alpha=policy.alpha))
    return next((finding.detail for finding in findings if finding.reason == "machine-too-busy"), "")


def _machine(rule: Limit, limits: Limits, candidate: Evaluation) -> Finding | None:
    for fact, wanted in sorted((limits.machine or {}).items()):
        there = candidate.machine.get(fact)
        if there != wanted:
            where = f"{fact} is {there!r} where {candidate.model} was timed, and the limit is set for {wanted!r}"
            return refused(rule.check, "other-machine", f"{where}; run on such a machine, or set a limit for this one")
    return None


def _usable(rule: Limit, candidate: Evaluation, alpha: float) -> Finding | None:
    """A refusal where there are no rounds to take a bound from, too few of them, or some that are no figures."""
    timed, worked, least = candidate.rounds.get(rule.key), candidate.rounds.get(rule.worked), rounds_needed(alpha)
    if not timed or (rule.of_speed and (not worked or "processor_share" not in candidate.load)):
        return refused(rule.check, "rounds-missing", f"what each round gave for {rule.key} of {candidate.model} is not there; measure it again")
    values = [*timed, *(worked or ())]
    bad = next((value for value in values if not isfinite(value)), None)
    if bad is not None:
        return refused(rule.check, "not-a-number", f"{rule.key} of {candidate.model} was {bad} in a round", measured=bad)
    if min(values) <= 0:
        return refused(
            rule.check, "impossible-value", f"{rule.key} of {candidate.model} was {min(values):g} in a round; it is above 0 for any model", measured=min(values)
        )
    if len(timed) < least:
        few = f"{len(timed)} rounds of {rule.key} can never make {100 * (1 - alpha):.4g} % sure, {least} can; measure it again"
        return refused(rule.check, "too-few-rounds", few, measured=float(len(timed)), limit=float(least))
    return None


def _judged(rule: Limit, limit: float, candidate: Evaluation, alpha: float) -> Finding:
    values = candidate.rounds[rule.key]
    busy = busy_with(candidate, values) if rule.of_speed else ""
    every = [*values, *candidate.rounds.get(rule.worked, ())]
    low, high = (min(every), max(every)) if busy else median_bounds(values, alpha)
    median = float(np.median(values))
    worst, best = (low, high) if rule.more else (high, low)
    sure = "in every round, because the machine was busy" if busy else f"{100 * (1 - alpha):.4g} % sure"
    digits = ",.0f" if not rule.of_speed else ".2f"
    detail = (
        f"{median:{digits}} {rule.unit} ({len(values)} rounds), {'at least' if rule.more else 'at most'} {worst:{digits}} ({sure}), "
        f"{limit:{digits}} {'asked for' if rule.more else 'allowed'}"
    )
    if _keeps(rule, worst, limit):
        return passed(rule.check, detail, measured=worst, limit=limit)
    if not _keeps(rule, best, limit):
        return refused(rule.check, rule.reason, detail, measured=worst, limit=limit)
    if rule.of_speed and (busy or (high - low) / median > TELLING):
        why = busy or f"the bounds lie {100 * (high - low) / median:.0f} % apart"
        busy_line = f"{detail}; the machine was too busy to tell: {why}; run again when nothing else runs"
        return refused(rule.check, "machine-too-busy", busy_line, measured=worst, limit=limit)
    return refused(rule.check, rule.reason, f"{detail}; too close to the limit to be sure", measured=worst, limit=limit)


def _keeps(rule: Limit, value: float, limit: float) -> bool:
    return value >= limit if rule.more else value <= limit


def busy_with(evaluation: Evaluation, values: Sequence[float]) -> str:
    """What speaks against the rounds being alike; empty when nothing does."""
    share, steal = evaluation.load.get("processor_share", 0.0), evaluation.load.get("steal_share", 0.0)
    if not share >= PROCESSOR_SHARE:
        return f"the measuring process had a processor for {100 * share:.0f} % of its time, {100 * PROCESSOR_SHARE:.0f} % are needed"
    if not steal <= STEAL_SHARE:
        return f"the host gave {100 * steal:.0f} % of the machine's time to others, at most {100 * STEAL_SHARE:.0f} % are allowed"
    half = len(values) // 2
    drift = abs(float(np.median(values[:half])) - float(np.median(values[half:]))) / float(np.median(values))
    return f"the first half of the rounds differs from the second by {100 * drift:.0f} %" if drift > DRIFT else ""


def median_bounds(values: Sequence[float], alpha: float) -> tuple[float, float]:
    """One-sided lower and upper bounds of the median, each wrong with probability ``alpha`` at most. Infinite where there are too few values."""
    k = rank(len(values), alpha)
    if not k:
        return float("-inf"), float("inf")
    ordered = sorted(values)
    return float(ordered[k - 1]), float(ordered[-k])


def speeds(evaluation: Evaluation, alpha: float) -> dict[str, tuple[float, float]]:
    """Every ratio of times as people should read it: the median over rounds, and its lower bound at this error rate; 0 where the rounds are too few for one."""
    timed = {name: values for name, values in evaluation.rounds.items() if ("latency_ratio" in name or "decode_ratio" in name) and values}
    return {name: (float(np.median(values)), max(0.0, median_bounds(values, alpha)[0])) for name, values in timed.items()}


def rank(count: int, alpha: float) -> int:
    """The largest k for which fewer than k of ``count`` fair coins fall heads with probability ``alpha`` at most; 0 when even none is likelier."""
    total, k = 0, 0
    while k < count and (total := total + comb(count, k)) <= alpha * 2**count:
        k += 1
    return k


def rounds_needed(alpha: float) -> int:
    """The fewest rounds from which any bound at this error rate can be taken."""
    return ceil(log2(1 / alpha) - 1e-12)
