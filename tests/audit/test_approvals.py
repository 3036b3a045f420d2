"""An approval that should not have counted is found afterwards: by a check of everything, and by whoever gets the bundle. Here the promoter does not ask."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.errors import GateRefused
from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.integrity.signing import public_pem
from recompress.promotion import approvals, approve, promoter
from recompress.promotion.approved import approval_trouble
from recompress.records import ApprovalRule
from tests.audit.checking import broken
from tests.evidence.bundles import PUBLIC
from tests.evidence.stories import KEY, Project

BOB = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)


class Clock:
    """A clock that stands still until it is put on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 2, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def promote(project: Project, monkeypatch: pytest.MonkeyPatch, rule: ApprovalRule, *, hours: float = 0.0, late: float = 0.0, **given: Any) -> str:
    """Approve ``late`` hours after the proposal and promote ``hours`` after that, with nobody asking who approved, and when."""
    plan = project.propose(1, rule)
    clock = project.ledger.clock
    with monkeypatch.context() as patch:
        for name in ("_check_person", "_check_age", "_check_signature", "_check_approval"):
            patch.setattr(approvals, name, lambda *_, **__: None)
        clock.now += timedelta(hours=late)  # type: ignore[attr-defined]
        approve(project.ledger, plan, **{"actor": "bob", **given})
        clock.now += timedelta(hours=hours)  # type: ignore[attr-defined]
        project.promoter.promote(plan, project.root / "model 1")
    return plan


@pytest.mark.parametrize(
    ("rule", "given", "trouble"),
    [
        ({}, {}, None),
        ({"expires_after_hours": 10}, {"hours": 9.9}, None),
        ({"expires_after_hours": 10}, {"hours": 10.2}, r"the approval by bob ran out at 2026-11-02T22:00:.*, and the promotion began at 2026-11-02T22:12:"),
        ({"expires_after_hours": 10}, {"late": 10.2}, r"came at 2026-11-02T22:12:.*, when the plan had waited longer than the 10 hours of its rule"),
        ({"not_the_author": True}, {"actor": " Ada"}, r" Ada approved what ada proposed, and the rule asks for somebody else"),
        ({"signed": True, "signers": {"eve": public_pem(BOB)}}, {}, "the approval by bob does not carry the signature that the plan's rule asks for"),
        ({"signed": True, "signers": {"bob": public_pem(BOB)}}, {"key": KEY}, "the approval by bob does not carry the signature"),
        ({"signed": True, "signers": {"bob": public_pem(BOB)}}, {"key": BOB}, None),
    ],
    ids=["no rule", "in time", "run out", "late", "the author", "another signer", "another key", "signed"],
)
def test_a_check_of_everything_and_a_bundle_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], given: dict[str, Any], trouble: str | None
) -> None:
    project = Project(tmp_path, Clock())
    plan = promote(project, monkeypatch, ApprovalRule(required=True, **rule), **given)
    story = project.story(plan)
    if trouble is None:
        assert broken(project) == []
        assert verify_bundle(write_bundle(tmp_path / "bundle", story, project.version(), KEY), PUBLIC).approver == "bob"
        return
    [line] = broken(project)
    assert re.search(f"^ner version 1: .*{trouble}", line)
    with pytest.raises(BundleBroken, match=trouble):
        write_bundle(tmp_path / "bundle", story, project.version(), KEY)


def test_an_approval_that_holds_longer_than_its_rule_is_found(tmp_path: Path) -> None:
    project = Project(tmp_path, Clock())
    plan = project.promote(1, ApprovalRule(required=True, expires_after_hours=1000))
    entries = project.story(plan).chain
    records = [entry for entry in entries if entry.body.get("plan") == plan]
    assert approval_trouble(ApprovalRule(required=True, expires_after_hours=1000), "ada", plan, records) is None
    found = approval_trouble(ApprovalRule(required=True, expires_after_hours=10), "ada", plan, records)
    assert found is not None
    assert "holds until" in found
    assert approval_trouble(ApprovalRule(required=True), "ada", plan, [e for e in records if e.kind != "approval"]) is not None
    assert approval_trouble(ApprovalRule(), "ada", plan, []) is None


def test_an_approval_that_runs_out_while_files_are_uploaded_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    project = Project(tmp_path, clock)
    plan = project.propose(1, ApprovalRule(required=True, expires_after_hours=1))
    approve(project.ledger, plan, actor="bob")
    usual = promoter.Promoter._version

    def slow(*given: Any) -> Any:
        made = usual(*given)
        clock.now += timedelta(hours=2)
        return made

    monkeypatch.setattr(promoter.Promoter, "_version", slow)
    with pytest.raises(GateRefused, match="by bob expired at 2026-11-02T13:00"):
        project.promoter.promote(plan, project.root / "model 1")
    assert project.registry.champion("ner") is None
    assert broken(project) == []
