"""The gate's verdict on one comparison, outside of any project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recompress.benchmarks import get_benchmark
from recompress.errors import InputError
from recompress.gate import Expected
from recompress.gate import judge as gate
from recompress.integrity.digest import sha256_json
from recompress.library.measure import Measurement
from recompress.policy import Policy, read_policy
from recompress.records import Look, Verdict
from recompress.settings.file import read_values


def judge(
    policy: str | Path | Policy | Mapping[str, Any],
    candidate: Measurement,
    baseline: Measurement,
    champion: Measurement | None = None,
    *,
    spent_loss: float = 0.0,
) -> Verdict:
    """May ``candidate`` replace ``champion`` (or be the first, without one), by a policy: a file, or its dials?

    All were measured on the same rows. The bounds are those of the gate for one look at these rows, at the policy's whole error rate: whoever judges twenty candidates
    so, or one of them twenty times, passes a bad one far oftener. ``recompress run`` counts the looks. ``spent_loss`` is what earlier promotions have lost, in points
    of the metric (0 to 1). Raises ``InputError`` for a policy that is none, and for what was not measured; whatever is wrong with what was measured is a refusal in the verdict.

    >>> verdict = recompress.judge("policy.yaml", after, before)
    >>> verdict.passed, verdict.reasons[0]
    (False, 'loss-too-large')
    """
    for name, given in (("candidate", candidate), ("baseline", baseline), ("champion", champion)):
        if not isinstance(given, Measurement) and (given is not None or name != "champion"):
            raise InputError(f"{name} should be what recompress.measure(model, rows) gives, got a {type(given).__name__}")
    if not isinstance(spent_loss, (int, float)):
        raise InputError(f"spent_loss should be a number from 0 to 1, got {spent_loss!r}")
    rules = _policy(policy)
    sides = [side for side in (candidate, baseline, champion) if side is not None]
    if len({side.benchmark for side in sides}) > 1:
        raise InputError(f"models of {' and '.join(sorted({side.benchmark for side in sides}))} cannot be compared")
    of_candidate, data = candidate.answers.evaluation.model_sha256, baseline.answers.evaluation.dataset_sha256
    expected = Expected(
        policy_sha256=rules.sha256,
        dataset_sha256=data,
        split_sha256=data,
        finalists=(of_candidate,),
        examples=len(baseline.answers.examples),
        groups=len(set(baseline.answers.groups or ())),
        candidate_sha256=of_candidate,
        baseline_sha256=baseline.answers.evaluation.model_sha256,
        champion_sha256=champion.answers.evaluation.model_sha256 if champion else None,
        accepted_baseline_sha256=None,
        baseline_accepted_by="",
    )
    benchmark, labels = get_benchmark(baseline.benchmark), baseline.labels
    return gate(
        rules,
        lambda totals: benchmark.metrics(totals, labels),
        candidate=candidate.answers,
        baseline=baseline.answers,
        champion=champion.answers if champion else None,
        accepted_baseline=None,
        spent_loss=spent_loss,
        expected=expected,
        look=_only_look(rules, of_candidate, data),
    )


def _policy(policy: str | Path | Policy | Mapping[str, Any]) -> Policy:
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, (str, Path)):
        return read_policy(Path(policy))
    if not isinstance(policy, Mapping):
        raise InputError(f"policy should be a file or a mapping of its dials, got {policy!r:.60}")
    return read_values(Policy, policy, "recompress.judge(policy)")


def _only_look(rules: Policy, candidate: str, split: str) -> Look:
    """The first and only one: it has the whole error rate."""
    key = sha256_json([rules.sha256, candidate, split])
    return Look(
        key=key, model="library", split=split, candidate_sha256=candidate, number=1, steps={"first": 1, "others": 1}, budget=rules.alpha, level=rules.alpha
    )
