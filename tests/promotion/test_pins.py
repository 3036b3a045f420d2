"""Pins: who may pin and lift, what is refused before work, at promotion and in an audit, and that nobody who only writes the ledger can loosen one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.audit import check_all
from recompress.errors import ApprovalPending, GateRefused, InputError
from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.integrity.signing import public_pem
from recompress.ledger import Ledger, LedgerBroken
from recompress.policy import Policy
from recompress.promotion import Promoter, PromotionRefused, approve, present_champion
from recompress.promotion.pins import FACT, check_recipe, pin, standing, tightened, unpin
from recompress.promotion.signed import PURPOSE
from recompress.records import ApprovalRule, PromotionPlan, Verdict
from tests.evidence import stories
from tests.evidence.stories import KEY, Project
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory

BOB, EVE = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (7, 8))
PEOPLE = {"bob": public_pem(BOB), "eve": public_pem(EVE)}
LOOSE: dict[str, Any] = {"metric": "f1", "baseline": {"margin": 0.05}, "champion": {"margin": 0.05}, "loss_budget": 0.2, "choose": "smallest"}
STRICT = Policy.model_validate(LOOSE | {"at_least": 0.6})
SIGNED = Policy.model_validate(LOOSE | {"approval": {"mode": "required", "signed": True}})
RULE = ApprovalRule(required=True, signed=True, signers=PEOPLE)


def rules(**changes: Any) -> Policy:
    return Policy.model_validate(LOOSE | changes)


def record(ledger: Ledger, policy: Policy) -> None:
    ledger.append("policy-recorded", {"recipe": "tiny", "policy_sha256": policy.sha256, "policy": policy.model_dump(mode="json")}, actor="ada")


def planned(ledger: Ledger, registry: FolderRegistry, tmp_path: Path, policy: Policy, rule: ApprovalRule | None = None) -> tuple[PromotionPlan, Verdict, Path]:
    """A plan as a run makes it: under the pin of the moment."""
    place = model_directory(tmp_path / "model", 1)
    plan, verdict = make_plan(place, present_champion(registry, MODEL), rule=rule)
    verdict = verdict.model_copy(update={"policy_sha256": policy.sha256})
    now = standing(ledger, MODEL)
    facts = plan.facts | ({FACT: now.digest} if now else {})
    return plan.model_copy(update={"policy_sha256": policy.sha256, "verdict_sha256": verdict.digest, "facts": facts}), verdict, place


def test_a_recipe_may_be_stricter_and_never_laxer(ledger: Ledger) -> None:
    pin(ledger, MODEL, STRICT, actor="bob", reason="what the phones need", signers={})
    held = standing(ledger, MODEL)
    check_recipe(held, STRICT, MODEL)
    check_recipe(held, rules(at_least=0.7, confidence=0.99), MODEL)
    with pytest.raises(
        InputError, match=r"at_least is 0.5, pinned is 0.6 .*; loss_budget is 0.3, pinned is 0.2 .*bob pinned it in ledger record 1: what the phones"
    ) as refused:
        check_recipe(held, rules(at_least=0.5, loss_budget=0.3), MODEL)
    assert refused.value.exit_code == 2
    check_recipe(standing(ledger, "another"), rules(), "another")


def test_the_last_pin_counts_and_a_lifted_one_does_not(ledger: Ledger) -> None:
    assert standing(ledger, MODEL) is None
    pin(ledger, MODEL, STRICT, actor="bob", reason="first", signers={})
    looser = pin(ledger, MODEL, rules(), actor="bob", reason="second", signers={})
    held = standing(ledger, MODEL)
    assert held is not None
    assert (held.digest, held.policy) == (looser.hash, rules())
    unpin(ledger, MODEL, actor="bob", reason="retired", signers={})
    assert standing(ledger, MODEL) is None
    with pytest.raises(InputError, match="nothing is pinned"):
        unpin(ledger, MODEL, actor="bob", reason="again", signers={})
    with pytest.raises(InputError, match="needs a reason"):
        pin(ledger, MODEL, STRICT, actor="bob", reason=" ", signers={})


def test_where_approvals_must_be_signed_a_pin_must_be_too(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="approvers/ holds no public key"):
        pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers={}, key=BOB)
    for person, key, why in (("bob", None, "must be signed"), ("bob", EVE, "is not bob's"), ("mallory", BOB, "mallory may not decide")):
        with pytest.raises(GateRefused, match=why):
            pin(ledger, MODEL, SIGNED, actor=person, reason="first", signers=PEOPLE, key=key)
    pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers={"bob": PEOPLE["bob"]}, key=BOB)
    head = ledger.head()
    for person, key in (("bob", None), ("eve", EVE), ("ada", None)):
        with pytest.raises(GateRefused):
            pin(ledger, MODEL, rules(), actor=person, reason="looser", signers=PEOPLE, key=key)
        with pytest.raises(GateRefused):
            unpin(ledger, MODEL, actor=person, reason="away", signers=PEOPLE, key=key)
    with pytest.raises(GateRefused, match="signatures of nobody count"):
        unpin(ledger, MODEL, actor="bob", reason="away", signers={}, key=BOB)  # he is an approver no more
    assert ledger.head() == head
    pin(ledger, MODEL, SIGNED, actor="bob", reason="eve has come", signers=PEOPLE, key=BOB)
    unpin(ledger, MODEL, actor="eve", reason="retired", signers=PEOPLE, key=EVE)
    assert standing(ledger, MODEL) is None


def forged(ledger: Ledger) -> dict[str, Callable[[], object]]:
    """What somebody can try who writes the ledger's database, and has no key that counts."""
    first = ledger.entries("policy-pinned")[-1]
    lift = {"model": MODEL, "person": "bob", "reason": "away", "before": first.hash}
    looser = {**lift, "policy": rules().model_dump(mode="json"), "policy_sha256": rules().sha256, "signers": {}}
    signature = {name: first.body[name] for name in ("key", "signature")}
    return {
        "lifted without a signature": lambda: ledger.append("policy-unpinned", lift, actor="bob"),
        "lifted with the signature of the pin": lambda: ledger.append("policy-unpinned", lift | signature, actor="bob"),
        "lifted with a key of their own": lambda: ledger.append("policy-unpinned", lift | {"key": public_pem(EVE), "signature": "AA=="}, actor="bob"),
        "lifted in another's name": lambda: ledger.append("policy-unpinned", lift | signature, actor="eve"),
        "replaced by a looser one": lambda: ledger.append("policy-pinned", looser | signature, actor="bob"),
        "pinned anew, as if none stood": lambda: ledger.append("policy-pinned", {**looser, "before": ""}, actor="bob"),
        "another policy under the old digest": lambda: ledger.append("policy-pinned", {**looser, "policy_sha256": SIGNED.sha256} | signature, actor="bob"),
    }


@pytest.mark.parametrize("way", ["lifted without a signature", "lifted with the signature of the pin", "lifted with a key of their own", "lifted in another's name",
                                 "replaced by a looser one", "pinned anew, as if none stood", "another policy under the old digest"])  # fmt: skip
def test_what_is_written_into_the_ledger_by_other_means_loosens_nothing(ledger: Ledger, registry: FolderRegistry, way: str) -> None:
    pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers=PEOPLE, key=BOB)
    forged(ledger)[way]()
    with pytest.raises(LedgerBroken, match="ledger record 2"):
        standing(ledger, MODEL)
    assert any("ledger record 2" in trouble.detail for trouble in check_all(ledger, registry).broken)


def test_a_signature_is_for_one_pin_and_cannot_be_used_again(ledger: Ledger) -> None:
    pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers=PEOPLE, key=BOB)
    lifted = unpin(ledger, MODEL, actor="bob", reason="away", signers=PEOPLE, key=BOB)
    pin(ledger, MODEL, SIGNED, actor="bob", reason="back again", signers=PEOPLE, key=BOB)
    ledger.append("policy-unpinned", lifted.body, actor="bob")
    with pytest.raises(LedgerBroken, match="ledger record 4: policy-unpinned follows on pin"):
        standing(ledger, MODEL)
    assert PURPOSE == "decision"  # never that of an approval: a signature of one kind must not do for another


def test_a_pin_that_changed_since_the_plan_was_made_is_a_refusal(ledger: Ledger, registry: FolderRegistry, promoter: Promoter, tmp_path: Path) -> None:
    record(ledger, STRICT)
    for number, change in enumerate(
        (lambda: pin(ledger, MODEL, rules(), actor="bob", reason="now", signers={}), lambda: unpin(ledger, MODEL, actor="bob", reason="x", signers={}))
    ):
        plan, verdict, place = planned(ledger, registry, tmp_path, STRICT)
        progress = promoter.propose(plan, verdict)
        change()
        with pytest.raises(PromotionRefused) as refused:
            promoter.promote(progress.digest, place)
        assert refused.value.reason == "pin-changed", number
    assert registry.champion(MODEL) is None


def test_a_plan_that_is_laxer_is_refused_when_it_is_carried_out(ledger: Ledger, registry: FolderRegistry, promoter: Promoter, tmp_path: Path) -> None:
    """The run that made it may not have asked: whoever writes a plan by hand is refused here."""
    pin(ledger, MODEL, STRICT, actor="bob", reason="first", signers={})
    plan, verdict, place = planned(ledger, registry, tmp_path, rules())
    digest = promoter.propose(plan, verdict).digest
    with pytest.raises(PromotionRefused, match="is not in the ledger"):
        promoter.promote(digest, place)
    record(ledger, rules())
    digest = promoter.propose(plan, verdict).digest
    with pytest.raises(PromotionRefused, match=r"laxer-than-pinned.*at_least is not there, pinned is 0.6"):
        promoter.promote(digest, place)
    record(ledger, STRICT)
    plan, verdict, place = planned(ledger, registry, tmp_path, STRICT)
    assert promoter.promote(promoter.propose(plan, verdict).digest, place).version == "1"


def test_a_plan_with_a_laxer_rule_for_approvals_is_refused(ledger: Ledger, registry: FolderRegistry, promoter: Promoter, tmp_path: Path) -> None:
    pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers=PEOPLE, key=BOB)
    record(ledger, SIGNED)
    for rule in (ApprovalRule(), ApprovalRule(required=True), RULE.model_copy(update={"expires_after_hours": 100.0})):
        plan, verdict, place = planned(ledger, registry, tmp_path, SIGNED, rule)
        digest = promoter.propose(plan, verdict).digest
        if rule.required:
            approve(ledger, digest, actor="bob", key=BOB)
        with pytest.raises(PromotionRefused, match="rule for approvals is laxer"):
            promoter.promote(digest, place)


def test_a_rollback_asks_whom_the_pin_asks(ledger: Ledger) -> None:
    pin(ledger, MODEL, SIGNED, actor="bob", reason="first", signers=PEOPLE, key=BOB)
    held = standing(ledger, MODEL)
    rule = tightened(ApprovalRule(), held)
    assert (rule.required, rule.signed, rule.expires_after_hours) == (True, True, 72.0)
    assert tightened(ApprovalRule(required=True, expires_after_hours=5, not_the_author=True), held).expires_after_hours == 5
    assert tightened(ApprovalRule(), None) == ApprovalRule()


def test_a_rollback_waits_for_a_signature_where_one_is_pinned_and_is_not_judged_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.promote(1)
    project.promote(2)
    pin(project.ledger, MODEL, SIGNED.model_copy(update={"at_least": 0.9}), actor="bob", reason="now", signers=PEOPLE, key=BOB)
    rule = ApprovalRule(signers=PEOPLE)  # as ``tasks.people.decide.rule_of`` gives it: the keys of today
    with pytest.raises(ApprovalPending):
        project.promoter.rollback(MODEL, reason="slow", rule=rule)
    [waiting] = [entry.body for entry in project.ledger.entries("rollback")]
    held = standing(project.ledger, MODEL)
    assert held is not None
    assert waiting["content"]["facts"] == {FACT: held.digest}
    approve(project.ledger, waiting["plan"], actor="eve", key=EVE)
    assert project.promoter.promote(waiting["plan"]).version == "1"
    assert check_all(project.ledger, project.registry).broken == []


@pytest.fixture
def pinned_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two promotions under a pin, with a plan that names it."""
    monkeypatch.setattr(stories, "POLICY", STRICT.model_dump(mode="json"))
    project = Project(tmp_path)
    pin(project.ledger, MODEL, STRICT, actor="bob", reason="first", signers={})
    record(project.ledger, STRICT)
    made = stories.make_plan
    monkeypatch.setattr(stories, "make_plan", lambda *a, **k: under_pin(project.ledger, made(*a, **k)))
    return project


def under_pin(ledger: Ledger, plan: PromotionPlan) -> PromotionPlan:
    now = standing(ledger, MODEL)
    return plan.model_copy(update={"facts": plan.facts | ({FACT: now.digest} if now else {})})


def test_an_audit_and_a_bundle_hold_each_promotion_against_the_pin_of_its_time(pinned_project: Project) -> None:
    project = pinned_project
    plan = project.promote(1)
    pin(project.ledger, MODEL, rules(at_least=0.7), actor="bob", reason="more now", signers={})
    assert check_all(project.ledger, project.registry).troubles == ()
    bundle = write_bundle(project.root / "bundle", project.story(plan), project.version(), KEY)
    assert verify_bundle(bundle, KEY.public_key()).plan == plan


def test_a_promotion_that_went_past_the_pin_is_found_by_audit_and_bundle(pinned_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody changed the promoter: what it carried out still shows."""
    project = pinned_project
    pin(project.ledger, MODEL, rules(at_least=0.7), actor="bob", reason="more now", signers={})
    monkeypatch.setattr("recompress.promotion.promoter.hold", lambda ledger, plan: None)
    plan = project.promote(1)
    assert [trouble.detail for trouble in check_all(project.ledger, project.registry).broken] == [
        f"at_least is 0.6, pinned is 0.7 (at least as high), for {MODEL}"
    ]
    with pytest.raises(BundleBroken, match=r"ledger.jsonl: at_least is 0.6, pinned is 0.7"):
        write_bundle(project.root / "bundle", project.story(plan), project.version(), KEY)
