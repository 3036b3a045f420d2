"""The commands of people: whoever says the wrong thing gets one line and the right exit code, and nothing is half-done."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recompress.errors import InputError
from recompress.integrity.signing import public_pem
from recompress.ledger import Ledger
from recompress.policy import Approval
from recompress.records import ApprovalRule
from tests.evidence.people import People
from tests.promotion.conftest import Clock

BOB, EVE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ASKED = ApprovalRule(required=True, not_the_author=True)
SIGNED = ASKED.model_copy(update={"signed": True, "signers": {"bob": public_pem(BOB)}})


def key_file(place: Path, key: Ed25519PrivateKey, mode: int = 0o600) -> str:
    place.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    place.chmod(mode)
    return str(place)


def test_a_plan_is_shown_approved_and_carried_out_and_leaves_evidence(people: People) -> None:
    plan = people.propose(1, ASKED)
    [waiting] = people.ask("approve")
    assert waiting["digest"] == plan
    code, out, _ = people.call("approve")
    assert (code, plan in out) == (0, True)
    assert people.refused("promote", plan, code=6).endswith(f"recompress approve {plan}")
    code, _, err = people.call("approve", plan, actor="bob")
    assert code == 0
    dossier = people.dossiers[plan]
    for shown in (
        plan,
        dossier.verdict.candidate_sha256,
        dossier.verdict.policy_sha256,
        dossier.verdict.digest,
        "loss-against-baseline",
        "by somebody other than ada",
    ):
        assert shown in err, "the plan is shown before it is approved"
    assert people.ask("promote", plan)["version"] == "1"
    assert people.ask("promote", plan)["version"] == "1", "twice is once"
    place = people.root / "evidence" / "ner-v1"
    assert people.ask("audit", "verify", str(place))["approver"] == "bob"
    assert people.ask("approve") == []


def test_the_digest_counts_in_full(people: People) -> None:
    plan = people.propose(1, ASKED)
    for command in (("approve",), ("reject", "--reason", "x")):
        for wrong in (plan[:12], plan[:-1], ("0" if plan[0] != "0" else "1") + plan[1:], plan.upper(), "", "0" * 64):
            assert "no plan has the digest" in people.refused(command[0], wrong, *command[1:], code=2, actor="bob")
    people.ask("approve", people.propose(2, ASKED), actor="bob")
    for wrong in (("0" if plan[0] != "0" else "1") + plan[1:], plan[:20] + "".join("0" if d != "0" else "1" for d in plan[20:23]) + plan[23:], plan[:-1]):
        for command in (("approve", wrong), ("reject", wrong, "--reason", "x"), ("promote", wrong)):
            error = people.refused(*command, code=2, actor="bob")
            assert f"is {plan} meant? `recompress approve` shows every plan that waits" in error, command
            error = people.refused(command[0], "0" * 64, *command[2:], code=2, actor="bob")
            assert "meant?" not in error
            assert "`recompress approve` shows every plan that waits" in error, command


def test_a_wrong_digit_of_an_approved_plan_is_hinted_at_where_it_is_carried_out(people: People) -> None:
    plan = people.propose(1, ASKED)
    people.ask("approve", plan, actor="bob")
    wrong = plan[:-1] + ("0" if plan[-1] != "0" else "1")
    assert f"is {plan} meant?" in people.refused("promote", wrong, code=2)
    people.ask("promote", plan)
    assert "nothing waits for anybody now" in people.refused("promote", wrong, code=2), "a plan that has ended is not meant"


@pytest.mark.parametrize("author", ["ada", "Ada", " ADA "])
def test_the_author_may_not_approve(people: People, author: str) -> None:
    assert "asks for the approval of somebody else" in people.refused("approve", people.propose(1, ASKED), code=4, actor=author)


def test_an_approval_is_used_once_and_a_plan_that_ended_stays_ended(people: People) -> None:
    plan = people.propose(1, ASKED)
    people.ask("approve", plan, actor="bob")
    assert "was approved by bob already" in people.refused("approve", plan, code=4, actor="carol")
    people.ask("promote", plan)
    assert "nothing is left to decide" in people.refused("approve", plan, code=4, actor="bob")
    assert "nothing is left to decide" in people.refused("reject", plan, "--reason", "late", code=4, actor="bob")


def test_a_rejection_needs_a_reason_and_is_the_end(people: People) -> None:
    plan = people.propose(1, ASKED)
    assert "needs a reason" in people.refused("reject", plan, "--reason", "  ", code=2, actor="bob")
    assert people.call("reject", plan)[0] == 2, "--reason is missing"
    assert people.ask("reject", plan, "--reason", "not before Monday", actor="bob")["by"] == "bob"
    assert "is rejected by bob" in people.refused("promote", plan, code=4)
    assert "is rejected by bob" in people.refused("approve", plan, code=4, actor="carol")


def test_a_signed_approval(people: People, tmp_path: Path) -> None:
    plan = people.propose(1, SIGNED)
    bob, eve = key_file(tmp_path / "bob.pem", BOB), key_file(tmp_path / "eve.pem", EVE)
    (tmp_path / "public.pem").write_text(public_pem(BOB))
    (tmp_path / "public.pem").chmod(0o600)
    assert "must be signed; give the private key" in people.refused("approve", plan, code=4, actor="bob")
    assert "which is not bob's" in people.refused("approve", plan, "--key", eve, code=5, actor="bob")
    assert "eve may not approve" in people.refused("approve", plan, "--key", eve, code=4, actor="eve")
    assert "cannot be read" in people.refused("approve", plan, "--key", str(tmp_path / "none.pem"), code=2, actor="bob")
    assert "is not a private key" in people.refused("approve", plan, "--key", str(tmp_path / "public.pem"), code=5, actor="bob")
    assert "can be read by others" in people.refused("approve", plan, "--key", key_file(tmp_path / "open.pem", BOB, 0o644), code=5, actor="bob")
    assert people.ask("approve", plan, "--key", bob, actor="bob")["signed"] is True
    assert people.ask("promote", plan)["version"] == "1"


@pytest.fixture
def clock(people: People, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which every command acts."""
    import tasks.ledger.access

    clock = Clock()
    people.ledger.clock = clock
    monkeypatch.setattr(tasks.ledger.access, "Ledger", partial(Ledger, clock=clock))
    return clock


@pytest.mark.parametrize("rule", [ASKED, SIGNED])
def test_an_approval_that_expired_carries_nothing_out(people: People, tmp_path: Path, clock: Clock, rule: ApprovalRule) -> None:
    key = ("--key", key_file(tmp_path / "bob.pem", BOB)) if rule.signed else ()
    plan = people.propose(1, rule.model_copy(update={"expires_after_hours": 24.0}))
    approval = people.ask("approve", plan, *key, actor="bob")
    assert (approval["expires"], approval["signed"]) == ("2026-11-21T12:00:00.000000Z", rule.signed)
    clock.wait(24)
    code, _, err = people.call("promote", plan)
    assert (code, f"the approval of plan {plan[:12]}… by bob expired at 2026-11-21T12:00:00.000000Z; run again, and ask again" in err) == (4, True)
    for command in (("promote", plan), ("approve", plan, *key), ("reject", plan, "--reason", "late")):
        assert "is expired" in people.refused(*command, code=4, actor="bob")
    assert people.registry.champion("ner") is None
    assert people.propose(1, rule.model_copy(update={"expires_after_hours": 24.0})) != plan, "the next run asks again"


def test_a_plan_that_waited_too_long_waits_no_more(people: People, clock: Clock) -> None:
    plan = people.propose(1, ASKED.model_copy(update={"expires_after_hours": 24.0}))
    assert [waiting["waits_until"] for waiting in people.ask("approve")] == ["2026-11-21T12:00:00.000000Z"]
    clock.wait(24)
    assert people.ask("approve") == [], "nobody is asked what can no longer be approved"
    code, _, err = people.call("approve", plan, actor="bob")
    assert (code, "has waited since 2026-11-20T12:00:00.000000Z, longer than 24 hours, and expired; run again, and ask again" in err) == (4, True)
    assert "is expired" in people.refused("promote", plan, code=4)


def test_keys_that_are_no_approvers_keys(people: People, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    from recompress.evidence.model_signature import model_key

    plan = people.propose(1, SIGNED)
    (tmp_path / "locked.pem").write_bytes(BOB.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    (tmp_path / "locked.pem").chmod(0o600)
    (tmp_path / "folder.pem").mkdir(mode=0o700)
    for file, code, message in [
        (model_key(tmp_path, "elliptic"), 5, "is not an Ed25519 key"),
        (tmp_path / "locked.pem", 5, "is not a private key in PEM without a password"),
        (tmp_path / "folder.pem", 2, "cannot be read"),
    ]:
        assert message in people.refused("approve", plan, "--key", str(file), code=code, actor="bob")
    people.ask("approve", plan, "--key", key_file(tmp_path / "bob.pem", BOB), actor="bob")


def test_public_keys_of_approvers_come_from_their_folder(tmp_path: Path) -> None:
    from tasks.ledger.keys import approval_rule

    signed = Approval(mode="required", signed=True, not_the_author=True, expires_after_hours=5.0)
    with pytest.raises(InputError, match="approvers/ holds no public key"):
        approval_rule(tmp_path, signed)
    folder = tmp_path / "approvers"
    folder.mkdir()
    (folder / "bob.pem").write_text(public_pem(BOB))
    rule = approval_rule(tmp_path, signed)
    assert rule == ApprovalRule(required=True, signed=True, not_the_author=True, expires_after_hours=5.0, signers={"bob": public_pem(BOB)})
    assert approval_rule(tmp_path, Approval(mode="required")) == ApprovalRule(required=True)
    assert approval_rule(tmp_path, Approval()) == ApprovalRule()
    (folder / "eve.pem").write_text("not a key")
    with pytest.raises(InputError, match=r"approvers/eve\.pem: not a public key"):
        approval_rule(tmp_path, signed)


def test_going_back(people: People) -> None:
    people.promote(1)
    assert "has no earlier champion" in people.refused("rollback", "ner", "--reason", "slow", code=2)
    people.promote(2)
    assert people.call("rollback", "ner")[0] == 2, "--reason is missing"
    assert "needs a reason" in people.refused("rollback", "ner", "--reason", " ", code=2)
    assert "never was champion; these were: 1, 2" in people.refused("rollback", "ner", "--to", "9", "--reason", "slow", code=2)
    assert "no version ever was" in people.refused("rollback", "none", "--to", "9", "--reason", "slow", code=2)
    assert people.ask("rollback", "ner", "--reason", "slow on phones")["version"] == "1"
    folders = sorted(path.name for path in (people.root / "evidence").iterdir())
    assert folders[:2] == ["ner-v1", f"ner-v1-rollback-{people.ledger.last('promotion-committed').sequence}"]
    assert people.ask("audit", "verify")["holds"] is True


def test_going_back_asks_the_same_people(people: People) -> None:
    people.promote(1, ASKED)
    people.promote(2, ASKED)
    code, _, err = people.call("rollback", "ner", "--reason", "slow")
    assert (code, "waits for an approval" in err) == (6, True)
    [waiting] = people.ask("approve")
    assert waiting["plan"]["kind"] == "rollback"
    people.ask("approve", waiting["digest"], actor="bob")
    assert people.ask("promote", waiting["digest"])["version"] == "1"


def test_a_bundle_that_a_crash_prevented_is_made_by_whoever_comes_next(people: People) -> None:
    people.promote(1)
    report = people.ask("audit", "verify")
    assert report["holds"] is True
    assert [t["where"] for t in report["troubles"]] == ["evidence/ner-v1"]
    assert "recompress audit bundle ner@1" in report["troubles"][0]["detail"]
    partial = people.root / "evidence" / ".ner-v1.partial-0123"
    partial.mkdir(parents=True)
    place = Path(people.ask("audit", "bundle", "ner@champion")["bundle"])
    assert place == people.root / "evidence" / "ner-v1"
    assert not partial.exists()
    assert people.ask("audit", "verify")["troubles"] == []
    shutil.rmtree(place)
    people.promote(2)
    people.ask("rollback", "ner", "--reason", "slow")
    assert {"ner-v1", "ner-v2"} < {path.name for path in (people.root / "evidence").iterdir()}


def test_evidence_that_cannot_be_written_does_not_undo_the_promotion(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = people.propose(1)
    monkeypatch.setenv("RECOMPRESS_SIGNING_KEY", str(people.root / "none.pem"))
    code, _, err = people.call("promote", plan)
    assert code == 0
    assert "could not be written" in err
    assert "recompress audit bundle ner@1" in err
    assert people.registry.champion("ner") == "1"
    assert "cannot be read" in people.refused("audit", "bundle", "ner@1", code=2)
    monkeypatch.delenv("RECOMPRESS_SIGNING_KEY")
    assert people.ask("audit", "bundle", "ner@1")["bundle"]


def test_a_team_gives_its_own_keys(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.evidence.model_signature import model_key

    people.promote(1)
    monkeypatch.setenv("RECOMPRESS_SIGNING_KEY", key_file(tmp_path / "team.pem", BOB))
    monkeypatch.setenv("RECOMPRESS_MODEL_SIGNING_KEY", str(model_key(tmp_path / "team", "models")))
    place = people.ask("audit", "bundle", "ner@1")["bundle"]
    (tmp_path / "bob.pem").write_text(public_pem(BOB))
    assert people.ask("audit", "verify", place, "--key", str(tmp_path / "bob.pem"))["version"] == "1"
    assert not (people.root / "keys" / "recompress.pem").exists()
    assert (people.root / "keys" / "recompress.pub.pem").read_text() == public_pem(BOB)


def test_bundles_of_a_former_key_still_verify_once_it_is_named(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    former = (people.root / "keys" / "recompress.pub.pem").read_text()
    monkeypatch.setenv("RECOMPRESS_SIGNING_KEY", key_file(tmp_path / "new.pem", BOB))
    assert "does not come from the key" in people.refused("audit", "verify", code=5)
    (people.root / "keys" / "recompress-2026.pub.pem").write_text(former)
    assert people.ask("audit", "verify")["anchors"] == 2


def test_a_bundle_verifies_elsewhere_by_the_public_key_alone(people: People, tmp_path: Path) -> None:
    people.promote(1)
    archive = tmp_path / "evidence.zip"
    people.ask("audit", "bundle", "ner@champion", "--zip", str(archive), "--with-model")
    shutil.copy(people.root / "keys" / "recompress.pub.pem", tmp_path / "public.pem")
    elsewhere = People(tmp_path / "elsewhere")
    report = elsewhere.ask("audit", "verify", str(archive), "--key", str(tmp_path / "public.pem"))
    assert any("files of the model" in line for line in report["checked"])
    assert "there is no key to check with" in elsewhere.refused("audit", "verify", str(archive), code=2)
    (tmp_path / "eve.pem").write_text(public_pem(EVE))
    assert "does not come from the key" in elsewhere.refused("audit", "verify", str(archive), "--key", str(tmp_path / "eve.pem"), code=5)
    assert "not a public key" in elsewhere.refused("audit", "verify", str(archive), "--key", str(archive), code=2)
    assert "there is no bundle" in elsewhere.refused("audit", "verify", str(tmp_path / "none"), "--key", str(tmp_path / "eve.pem"), code=2)
    assert "go with a BUNDLE" in elsewhere.refused("audit", "verify", "--key", str(tmp_path / "eve.pem"), code=2)
    assert "exists already" in people.refused("audit", "bundle", "ner@1", "--zip", str(archive), code=2)
