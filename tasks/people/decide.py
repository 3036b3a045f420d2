"""What people do about a promotion: look at it, approve it, reject it, carry it out, go back. All of it ends as records in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.integrity.signing import read_private_key
from recompress.ledger import Entry, Ledger
from recompress.ledger.store import rfc3339
from recompress.promotion import Progress, Promoted, decisions, named
from recompress.promotion import approve as core_approve
from recompress.promotion import reject as core_reject
from recompress.promotion import waiting as core_waiting
from recompress.promotion.approvals import open_plan
from recompress.promotion.pins import standing, tightened
from recompress.promotion.states import progress_of
from recompress.records import ApprovalRule, Verdict
from tasks.ledger.access import actor
from tasks.ledger.keys import approvers
from tasks.people.bundle import NoEvidence, heal, recall_dossier
from tasks.running.project import Project

Say = Callable[[str], None]


def waiting(project: Project) -> list[dict[str, Any]]:
    """Every plan that waits for a person, oldest first."""
    return [as_json(progress) for progress in core_waiting(project.ledger)]


def look(project: Project, digest: str) -> tuple[dict[str, Any], str]:
    """A plan that can still be decided, as data and as text. Raises ``InputError`` for a digest that is not exactly one of those, ``GateRefused`` for one that ended."""
    progress = open_plan(project.ledger, digest)
    return as_json(progress), describe(progress, verdict_of(project, progress))


def approve(project: Project, digest: str, *, key: Path | None = None, person: str | None = None) -> Entry:
    return core_approve(project.ledger, digest, actor=person or actor(), key=read_private_key(key) if key else None)


def reject(project: Project, digest: str, reason: str, *, person: str | None = None) -> Entry:
    return core_reject(project.ledger, digest, actor=person or actor(), reason=reason)


def carry_out(project: Project, digest: str, say: Say) -> Promoted:
    """Promote an approved plan, with the model that it was made for, and write its evidence. Raises ``ApprovalPending`` while a person has to decide."""
    progress = named(project.ledger, digest)
    directory = None
    if progress.plan.kind == "promotion" and project.registry.find_version(progress.plan.model, digest) is None:
        directory = project.store.fetch(recall_dossier(project.memory, progress.plan).candidate_uri)
    promoted = project.promoter.promote(digest, directory)
    heal(project, say)
    return promoted


def rollback(project: Project, model: str, to: str | None, reason: str, say: Say) -> Promoted:
    """Go back to an earlier champion, under the rule for approvals that the last promotion had."""
    promoted = project.promoter.rollback(model, reason=reason, to=to, rule=rule_of(project, model))
    heal(project, say)
    return promoted


def rule_of(project: Project, model: str) -> ApprovalRule:
    """The rule for approvals by which this model was last promoted, with the keys that are known today."""
    committed = project.ledger.last("promotion-committed", model=model)  # what was proposed and never carried out sets no rule
    rule = progress_of(project.ledger, committed.body["plan"]).plan.approval if committed else ApprovalRule()
    rule = tightened(rule, standing(project.ledger, model))
    return rule.model_copy(update={"signers": approvers(project.root)}) if rule.signed else rule


def verdict_of(project: Project, progress: Progress) -> Verdict | None:
    """The verdict that a plan stands on, where it is at hand. Raises ``ForgedStep`` where somebody laid another in its place: nobody shall decide on that."""
    if progress.plan.kind == "rollback":
        return None
    try:
        return recall_dossier(project.memory, progress.plan).verdict
    except NoEvidence:
        return None


def as_json(progress: Progress) -> dict[str, Any]:
    return {
        "digest": progress.digest,
        "state": progress.state,
        "proposed_at": progress.entries[0].time,
        "waits_until": waits_until(progress),
        "plan": progress.plan.as_json(),
    }


def waits_until(progress: Progress) -> str | None:
    return rfc3339(decisions.waits_until(progress)) if progress.plan.approval.required else None


def describe(progress: Progress, verdict: Verdict | None) -> str:
    """What a person decides about: candidate, champion, evidence, policy, and the digest of it all."""
    plan = progress.plan
    facts, digests = plan.facts, plan.digests
    champion = f"version {plan.expected.version} ({plan.expected.model_sha256})" if plan.expected else "none: it would be the first"
    rows = [
        ("Candidate", f"{plan.candidate} for {plan.model}, proposed by {plan.author} at {progress.entries[0].time}"),
        ("model sha256", plan.model_sha256),
        ("Champion", champion),
        ("Why", plan.reason),
        ("Data", f"{facts.get('dataset', '')} {digests.get('data', '')} (md5 {facts.get('data_md5', 'unknown')})" if digests else ""),
        ("Base", f"{facts.get('base_model', '')} {facts.get('base_revision', '')} {digests.get('base', '')}" if digests else ""),
        ("Recipe", f"{facts.get('recipe', '')} {digests.get('recipe', '')}" if digests else ""),
        ("Code", f"git {facts.get('git_commit', 'unknown')}" if digests else ""),
        ("Policy", plan.policy_sha256 or ""),
        ("Verdict", f"{plan.verdict_sha256}: {verdict.metric} {verdict.score}" if verdict else plan.verdict_sha256 or ""),
        *(("", f"{'✓' if finding.passed else '✗'} {finding.check}: {finding.detail}") for finding in (verdict.findings if verdict else ())),
        ("Approval", _rule(plan.approval, plan.author, waits_until(progress))),
        ("State", progress.state),
        ("Plan", progress.digest),
    ]
    return "\n".join(f"{name:<13} {' '.join(value.split())}" for name, value in rows if value)


def _rule(rule: ApprovalRule, author: str, until: str | None) -> str:
    if not rule.required:
        return "not asked for"
    who = f"by somebody other than {author}" if rule.not_the_author else "by anybody"
    signed = f", signed by {' or '.join(sorted(rule.signers))}" if rule.signed else ""
    return f"{who}{signed}, until {until}"


def show_waiting(ledger: Ledger) -> str:
    plans = core_waiting(ledger)
    return "\n\n".join(describe(progress, None) for progress in plans) if plans else "Nothing waits for an approval."
