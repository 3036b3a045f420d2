"""The plan of a rollback: back to a version that was champion before, by the ledger, with the digest that its files had then."""

from __future__ import annotations

from recompress.errors import InputError
from recompress.ledger import Entry, Ledger
from recompress.promotion.states import Progress, progress_of, step
from recompress.records import ApprovalRule, ChampionRef, PromotionPlan


def rollback_plan(ledger: Ledger, champion: ChampionRef | None, model: str, *, to: str | None, reason: str, author: str, rule: ApprovalRule) -> PromotionPlan:
    """From ``champion`` to version ``to``, or to the one that it replaced when it was new. Raises ``InputError`` for a version that never was champion."""
    if to is not None and champion is not None and to == champion.version:
        raise InputError(f"version {to} is champion of {model} already")
    target = _promoted(ledger, model, to) if to is not None else _before(ledger, model, champion.version if champion else None)
    version, body = target.body["version"], target.body
    return PromotionPlan(
        kind="rollback",
        model=model,
        author=author,
        candidate=f"version {version}",
        model_sha256=body["model_sha256"],
        manifest_sha256=body["manifest_sha256"],
        expected=champion,
        version=version,
        approval=rule,
        reason=reason,
    )


def judge_rollback(ledger: Ledger, progress: Progress, *, actor: str) -> Progress:
    """What speaks for a rollback is that its version passed once: the record names the plan by which it did."""
    if progress.state != "proposed":
        return progress
    before = _promoted(ledger, progress.plan.model, str(progress.plan.version))
    return step(ledger, progress, "promotion-judged", {"verdict": None, "promoted_before": before.body["plan"]}, actor=actor, once=True)


def _promoted(ledger: Ledger, model: str, version: str) -> Entry:
    entry = ledger.last("promotion-committed", model=model, version=version)
    if entry is None:
        known = sorted({e.body["version"] for e in ledger.entries("promotion-committed", model=model)}, key=lambda v: (len(v), v))
        raise InputError(f"version {version} of {model} never was champion; {'these were: ' + ', '.join(known) if known else 'no version ever was'}")
    return entry


def _before(ledger: Ledger, model: str, present: str | None) -> Entry:
    """The promotion of the champion that the present one replaced when it was new. From one that somebody else put there: of the last that was promoted."""
    past = ledger.entries("promotion-committed", model=model)[::-1]
    reigns = [progress_of(ledger, entry.body["plan"]).plan for entry in past if entry.body["version"] == present]
    first = next((plan for plan in reigns if plan.kind == "promotion"), None)
    if first is None and past:
        return past[0]
    if first is None or first.expected is None:
        raise InputError(f"{model} has no earlier champion to go back to")
    return _promoted(ledger, model, first.expected.version)
