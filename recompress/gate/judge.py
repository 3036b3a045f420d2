"""One candidate, judged: every check is made and said, and only a candidate that passed all of them passes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence

from recompress.gate.baseline import check_again, check_baseline, check_floor
from recompress.gate.comparisons import compare, findings_of
from recompress.gate.inputs import Scores, check_inputs
from recompress.gate.limits import charge, check_budget, check_first_promotion, check_limits, check_spent, cost_of
from recompress.gate.looks import check_look, check_not_refused_before
from recompress.gate.measured import Expected, Measured
from recompress.gate.trainings import Again, check_trainings, records_of, side_by_side
from recompress.policy import Policy
from recompress.records import Finding, Look, Loss, Verdict


def judge(
    policy: Policy,
    scores: Scores,
    *,
    candidate: Measured,
    baseline: Measured | None,
    champion: Measured | None,
    accepted_baseline: Measured | None,
    spent_loss: float | None,
    expected: Expected,
    look: Look | None,
    again: Sequence[Again] = (),
) -> Verdict:
    """The verdict on one candidate. The same inputs give the same verdict, to the digest.

    ``scores`` turns summed counts into metrics: ``lambda totals: benchmark.metrics(totals, labels)``. ``champion`` is None only when there is none;
    ``accepted_baseline`` is the baseline behind the last promotion, measured on the same examples, and None when nothing was promoted before;
    ``again`` are further trainings of baseline and candidate, where the policy asks for them: the recipe is judged by all and the candidate by itself.
    ``spent_loss`` is ``spent_loss_after`` of the verdict behind the last promotion, and 0 after the first. ``look`` is the ledger's record of this look, whose
    level every bound is held to. Refuses, never raises, for whatever was measured.
    """
    models: Mapping[str, Measured | None] = {"candidate": candidate, "baseline": baseline, "champion": champion, "accepted_baseline": accepted_baseline}
    findings = [*check_inputs(policy, scores, models, expected), check_look(policy, look, expected)]
    findings += check_trainings(policy, scores, candidate, baseline, again, expected)
    comparable = all(finding.passed for finding in findings)
    level = look.level if look is not None else 0.0  # without a look nothing is compared
    losses: list[Loss] = []
    spent_after: float | None = None
    if comparable and baseline is not None:
        losses += compare(policy, scores, candidate, baseline, "baseline", level)
    if comparable and champion is not None:
        losses += compare(policy, scores, candidate, champion, "champion", level)
    if comparable and again and baseline is not None:
        candidates = side_by_side([candidate, *(training.candidate for training in again)])
        baselines = side_by_side([baseline, *(training.baseline for training in again)])
        losses += compare(policy, scores, candidates, baselines, "baseline", level, trainings=policy.trainings)
        if champion is not None:
            losses += compare(policy, scores, candidates, side_by_side([champion] * policy.trainings), "champion", level, trainings=policy.trainings)
    findings += findings_of(policy, losses, level)
    if comparable and baseline is not None:
        findings += check_floor(policy, scores, models, alpha=level)
        findings += check_baseline(policy, scores, baseline, accepted_baseline, expected, alpha=level)
        findings += check_again(policy, scores, baseline, accepted_baseline, again, expected, alpha=level)
    findings += check_not_refused_before(expected, findings)
    cost = max((cost_of(loss, same_model=_same(expected)) for loss in losses if loss.against == "champion" and not loss.slice), default=None)
    if expected.champion_sha256 is None:
        findings.append(check_first_promotion(policy))
        spent_after = spent_loss or 0.0
        cost = 0.0  # nobody to lose against; but an alias that somebody removed does not wipe out what was spent
    findings += _budget(policy, cost, spent_loss, first=expected.champion_sha256 is None)
    if cost is not None and spent_loss is not None:
        spent_after = charge(spent_loss, cost)
    findings += check_limits(policy, candidate.evaluation, baseline.evaluation if baseline else None, alpha=policy.alpha)
    return Verdict(
        candidate=candidate.evaluation.model,
        passed=all(finding.passed for finding in findings),
        findings=tuple(findings),
        losses=tuple(losses),
        metric=policy.metric,
        score=candidate.evaluation.metrics.get(policy.metric),
        size_bytes=candidate.evaluation.metrics.get("size_bytes"),
        latency_ratio=candidate.evaluation.metrics.get("latency_ratio"),
        smallest_detectable_loss=max((loss.smallest_detectable for loss in losses if not loss.slice), default=None),
        first_promotion=expected.champion_sha256 is None,
        spent_loss=spent_loss,
        spent_loss_after=spent_after,
        policy_sha256=policy.sha256,
        dataset_sha256=expected.dataset_sha256,
        candidate_sha256=expected.candidate_sha256,
        baseline_sha256=expected.baseline_sha256,
        champion_sha256=expected.champion_sha256,
        accepted_baseline_sha256=expected.accepted_baseline_sha256,
        pairing_sha256=candidate.pairing_sha256 if comparable else "",
        trainings=records_of(policy, again) if comparable else (),
        evaluations={role: model.evaluation.digest for role, model in models.items() if model is not None},
        computed_with={"numpy": importlib.metadata.version("numpy")},
        look=look,
    )


def _budget(policy: Policy, cost: float | None, spent_loss: float | None, *, first: bool) -> list[Finding]:
    if first and spent_loss is None:
        return []
    trouble = check_spent(spent_loss)
    if trouble is not None:
        return [trouble]
    if cost is None or spent_loss is None:
        return []  # the comparison with the champion was not made, and its refusal stands already
    return [check_budget(policy, cost, spent_loss)]


def _same(expected: Expected) -> bool:
    return expected.candidate_sha256 == expected.champion_sha256
