"""The last accepted baseline of a registered model, and a person's word for a weaker one."""

from __future__ import annotations

from pathlib import Path

from recompress.errors import InputError, IntegrityError
from recompress.evidence import Dossier
from recompress.integrity.digest import sha256_json
from recompress.integrity.signing import read_private_key
from recompress.ledger import Entry
from recompress.promotion.accepted import accept_baseline, plan_behind
from recompress.recipe import Plan
from recompress.records import PromotionPlan
from tasks.ledger.access import actor
from tasks.ledger.keys import approvers
from tasks.people.bundle import recall_dossier
from tasks.running.project import Project
from tasks.tracking.memory import ForgedStep, Memory

FACT = "baseline"
"""The fact of a plan that names its baseline's model by digest. Plans from before have it in their evidence only."""
UNKNOWN = "0" * 64
"""The baseline behind a plan that does not name it, and whose evidence is gone."""


def baseline_behind(memory: Memory, plan: PromotionPlan) -> tuple[str, Dossier | None, str]:
    """Digest of the baseline behind a plan; what was kept for the plan, held against the ledger's digest of its verdict; and why that is ``None`` where it is."""
    try:
        dossier = recall_dossier(memory, plan)
        if sha256_json(dossier.verdict.as_json()) != plan.verdict_sha256:
            raise IntegrityError(f"the evidence that was kept for plan {plan.digest[:12]}… has another verdict than the ledger names")
    except ForgedStep:  # told, and not worked around
        raise
    except IntegrityError as error:
        return plan.facts.get(FACT, UNKNOWN), None, str(error)
    return dossier.verdict.baseline_sha256, dossier, ""


def accept(project: Project, recipe: Plan, baseline: str, reason: str, key: Path | None) -> Entry:
    """Record that ``baseline`` counts for the recipe's model, beside the last accepted one. Raises ``InputError`` where nothing was promoted before."""
    model, policy = recipe.recipe.register_.model, recipe.policy
    plan = plan_behind(project.ledger, model, project.registry.champion(model) or "")
    if plan is None:
        raise InputError(f"nothing was ever promoted to {model}, so its baseline is compared with nothing and needs nobody's word")
    accepted, _, _ = baseline_behind(project.memory, plan)
    if accepted == baseline:
        raise InputError(f"{baseline[:12]}… is the accepted baseline of {model} already")
    private = read_private_key(key) if key else None
    people = approvers(project.root)
    return accept_baseline(project.ledger, model, baseline, accepted, actor=actor(), reason=reason, signers=people, signed=policy.approval.signed, key=private)
