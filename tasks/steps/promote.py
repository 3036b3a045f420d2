"""Promotion: the plan for the chosen variant, carried out by the promoter, and the champion as people ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recompress.errors import ApprovalPending, GateRefused
from recompress.integrity.digest import sha256_json
from recompress.integrity.fingerprint import code_fingerprint
from recompress.ledger import Ledger
from recompress.promotion import PLAN_TAG, Promoter
from recompress.promotion.pins import FACT, standing
from recompress.promotion.states import plan_in
from recompress.records import ChampionRef, DatasetRef, Evaluation, ModelRef, PromotionPlan, Verdict
from tasks.data.validate import DataCheck
from tasks.ledger.access import actor
from tasks.ledger.keys import approval_rule
from tasks.people.baselines import FACT as BASELINE
from tasks.people.bundle import heal, keep_dossier
from tasks.people.decide import describe
from tasks.running.code import CODE, git_commit
from tasks.running.line import line
from tasks.running.project import Project
from tasks.running.recompression import Recompression
from tasks.steps.judge import Champion, Judgement
from tasks.steps.settled import JUDGED, NAMED
from tasks.steps.trainings import Trained
from tasks.tracking.registry import open_registry


@dataclass(frozen=True)
class Promotion:
    """How a recompression's promotion ended. ``model`` is the variant that is champion now; ``None`` when nothing was promoted, for a ``reason``."""

    registered: str
    model: str | None = None
    version: str = ""
    plan: str = ""
    ledger_head: str = ""
    reason: str = ""
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@line("promote")
def promote(
    run: Recompression,
    dataset: DatasetRef,
    base: ModelRef,
    checks: DataCheck,
    evaluations: Sequence[Evaluation],
    judgement: Judgement,
    variants: Sequence[ModelRef],
    champion: Champion,
    trained: Sequence[Trained] = (),
) -> Promotion:
    """Make the chosen variant champion, or say why not. A refusal is an outcome with its exit code, so that the page is written all the same."""
    name = run.plan.recipe.register_.model
    write_evidence(run)
    if judgement.chosen is None:
        return Promotion(name, exit_code=4)
    chosen = next(model for model in variants if model.name == judgement.chosen)
    evaluations = [*evaluations, *([judgement.accepted.evaluation] if judgement.accepted.evaluation else [])]
    evaluations += [evaluation for training in trained for evaluation in (training.baseline, *training.finalists.values())]
    if chosen.sha256 == champion.sha256:
        plan = plan_behind(run.ledger, champion)
        if plan is not None and plan.verdict_sha256 == judgement.verdicts[chosen.name].digest:
            keep_dossier(
                run, plan, judgement.verdicts[chosen.name], evaluations, checks.as_json(), dataset, base, chosen, judgement.baseline_uri
            )  # in case it was lost
            write_evidence(run)
        return Promotion(name, chosen.name, champion.version, champion.tags.get("recompress.plan", ""), champion.tags.get("recompress.ledger_head", ""))
    stopped = rolled_back(run.ledger, name, chosen.sha256)
    if stopped is not None:
        return Promotion(name, reason=f"{chosen.name} was champion and was rolled back: {stopped}.", exit_code=4)
    promoter = Promoter(run.ledger, open_registry(run.store), actor())
    verdict = judgement.verdicts[chosen.name]
    plan = plan_for(run, dataset, base, checks, judgement, verdict, chosen, champion)
    run.begins("promotion")
    run.say(f"promotion · {chosen.name} to champion of {name}")
    keep_dossier(run, plan, verdict, evaluations, checks.as_json(), dataset, base, chosen, judgement.baseline_uri)
    try:
        progress = promoter.propose(plan, verdict)
        promoted = promoter.promote(progress.digest, run.store.fetch(chosen.uri))
    except ApprovalPending as waiting:
        for line in describe(progress, verdict).splitlines():
            run.say(line)
        return Promotion(name, plan=progress.digest, reason=str(waiting), exit_code=waiting.exit_code)
    except GateRefused as refused:
        return Promotion(name, plan=plan.digest, reason=str(refused), exit_code=refused.exit_code)
    write_evidence(run)
    run.done.append("promotion")
    return Promotion(name, chosen.name, promoted.version, promoted.plan, str(promoted.head))


def write_evidence(run: Recompression) -> None:
    """The bundles that are missing: of the promotion just made, and of any that was cut off before its own was written."""
    for place in heal(Project.of(run), run.say):
        run.say(f"evidence: {place.relative_to(run.root)}; recompress audit verify {place.relative_to(run.root)}")


def plan_behind(ledger: Ledger, champion: Champion) -> PromotionPlan | None:
    """The plan by which the champion was promoted, as the ledger has it."""
    opened = ledger.last("promotion-proposed", plan=champion.tags.get(PLAN_TAG, ""))
    return plan_in(opened) if opened else None


def plan_for(
    run: Recompression,
    dataset: DatasetRef,
    base: ModelRef,
    checks: DataCheck,
    judgement: Judgement,
    verdict: Verdict,
    chosen: ModelRef,
    champion: Champion,
) -> PromotionPlan:
    """What shall become champion, instead of what, and on which evidence."""
    recipe, policy = run.plan.recipe, run.plan.policy
    rule = approval_rule(run.root, policy.approval)
    pin = standing(run.ledger, recipe.register_.model)
    facts = {
        "evidence": judgement.evidence,
        "trial": judgement.named.evidence,
        NAMED: judgement.named.key,
        JUDGED: judgement.key,
        "judged_against": champion.version,
        "spent_loss": repr(verdict.spent_loss_after),
        "git_commit": git_commit(run.root, run.say),
        "data_md5": dataset.md5,
        "data_check": sha256_json(checks.as_json()),
        "dataset": dataset.name,
        "base_model": recipe.base.model,
        "base_revision": recipe.base.revision or "",
        "recipe": recipe.name,
        "steps": " ".join(chosen.steps),
        FACT: pin.digest if pin else "",
        BASELINE: verdict.baseline_sha256,
    }
    return PromotionPlan(
        model=recipe.register_.model,
        author=actor(),
        candidate=chosen.name,
        model_sha256=chosen.sha256,
        expected=ChampionRef(version=champion.version, model_sha256=champion.sha256) if champion.version else None,
        verdict_sha256=verdict.digest,
        policy_sha256=policy.sha256,
        digests={"data": dataset.sha256, "base": base.sha256, "recipe": run.plan.sha256, "code": code_fingerprint(*CODE)},
        facts={key: value for key, value in facts.items() if value},
        approval=rule.model_copy(update={"required": True}) if run.propose else rule,
    )


def rolled_back(ledger: Ledger, name: str, model_sha256: str) -> str | None:
    """The reason for which a person rolled this very model back, if that was the last thing done with it: a schedule must not promote it again."""
    for entry in reversed(ledger.entries("promotion-proposed", "rollback", model=name)):
        plan = plan_in(entry)
        if plan.kind == "promotion" and plan.model_sha256 == model_sha256:
            return None
        if plan.kind == "rollback" and plan.expected is not None and plan.expected.model_sha256 == model_sha256:
            return plan.reason
    return None
