"""A verdict on a recipe and not on one lucky training: the baseline and the candidate, trained several times with seeds that were fixed beforehand.

Of n trainings, each with a loss L_t against its own baseline (or against the one champion), the recipe's loss is what another training would lose on average:

    loss = mean of L_t                      examples are drawn together for all trainings, so that the bound of ``statistics`` holds for the mean
    upper = loss + sqrt(e^2 + t^2)          e = that bound - loss,   t = t_(n-1, confidence) * s / sqrt(n),   s = standard deviation of the L_t

A bootstrap over two or three trainings knows almost nothing of the spread between them; Student's t with n - 1 degrees of freedom knows how little that is. The
two parts are joined as squares, as for any sum of two quantities whose bounds are known (MOVER). ``s`` holds the noise of examples that trainings do not share as
well, and ``e`` holds it again: what is counted twice makes the bound wider. The model that would be promoted, the first, is judged by itself besides.

Sources: Student 1908, Biometrika 6:1-25; Zou and Donner 2008, "Construction of confidence limits about effect measures", Statistics in Medicine 27:1693-1702.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Num

from recompress.gate.inputs import Scores, check_one
from recompress.gate.measured import Expected, Measured
from recompress.gate.reasons import passed, refused
from recompress.policy import Policy
from recompress.records import Finding, Training


@dataclass(frozen=True)
class Again:
    """Another training of the baseline and of the candidate, measured on the same examples."""

    seed: int
    candidate: Measured
    baseline: Measured


def check_trainings(
    policy: Policy, scores: Scores, candidate: Measured, baseline: Measured | None, again: Sequence[Again], expected: Expected
) -> list[Finding]:
    """As many trainings as the policy asks for, each what it claims to be, on the examples of the first, and no two the same. Nothing where it asks for one."""
    if policy.trainings == 1 and not again:
        return []
    wanted, count = policy.trainings, len(again) + 1
    if count != wanted or len(expected.trainings) != len(again):
        why = f"the policy asks for {wanted} trainings of baseline and candidate, {count} were measured; run the recipe again"
        return [refused("trainings", "missing-trainings", why, measured=float(count), limit=float(wanted))]
    findings = [finding for number in range(len(again)) for finding in _check_one(policy, scores, candidate, again[number], expected, number)]
    digests = [expected.baseline_sha256, *(training.baseline.evaluation.model_sha256 for training in again)]
    if not findings and len(set(digests)) < len(digests):
        findings.append(refused("trainings", "repeated-training", f"{wanted} trainings gave {len(set(digests))} different baselines: one was counted twice"))
    return findings or [passed("trainings", _scores(policy, candidate, baseline, again))]


def _scores(policy: Policy, candidate: Measured, baseline: Measured | None, again: Sequence[Again]) -> str:
    """How many trainings there are and what each gave."""
    ours, theirs = [candidate, *(training.candidate for training in again)], [baseline, *(training.baseline for training in again)]
    gave = [", ".join(f"{model.evaluation.metrics.get(policy.metric, np.nan):.4f}" for model in models if model) for models in (ours, theirs)]
    return f"{len(ours)} trainings with seeds that were fixed before: {policy.metric} {gave[0]} against {gave[1]} of their baselines; the first is the one to promote"


def _check_one(policy: Policy, scores: Scores, candidate: Measured, training: Again, expected: Expected, number: int) -> Iterator[Finding]:
    ours, theirs = expected.trainings[number]
    its = expected.model_copy(update={"candidate_sha256": ours, "baseline_sha256": theirs})
    for role, model in (("candidate", training.candidate), ("baseline", training.baseline)):
        findings = check_one(role, model, policy, scores, its)
        for finding in findings:
            yield finding.model_copy(update={"check": f"{finding.check}/training {number + 2}"})
        if not findings and (model.pairing_sha256 != candidate.pairing_sha256 or model.counts.shape != candidate.counts.shape):
            yield refused(f"{role}/training {number + 2}", "different-examples", f"training {number + 2} of the {role} was measured on other examples")


def side_by_side(models: Sequence[Measured]) -> Measured:
    """Trainings as one model whose counts stand side by side, ``[examples, trainings * k]``."""
    return replace(models[0], counts=np.concatenate([model.counts for model in models], axis=1))


def mean_over(trainings: int, scores: Scores, metric: str) -> Scores:
    """A metric of counts that stand side by side: its mean over trainings."""

    def mean(totals: Num[np.ndarray, "*draws k"]) -> dict[str, Float[np.ndarray, "*draws"]]:
        return {metric: np.mean([np.asarray(scores(part)[metric]) for part in np.split(totals, trainings, axis=-1)], axis=0)}

    return mean


def records_of(policy: Policy, again: Sequence[Again]) -> tuple[Training, ...]:
    """What a verdict says of each training after the first: its seed, its models and their scores."""
    return tuple(
        Training(
            seed=training.seed,
            candidate_sha256=training.candidate.evaluation.model_sha256,
            baseline_sha256=training.baseline.evaluation.model_sha256,
            candidate=training.candidate.evaluation.metrics[policy.metric],
            baseline=training.baseline.evaluation.metrics[policy.metric],
            evaluations=(training.candidate.evaluation.digest, training.baseline.evaluation.digest),
        )
        for training in again
    )
