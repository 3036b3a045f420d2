"""The commands of people: whoever says the wrong thing gets one line and the right exit code, and nothing is half-done."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recompress.errors import InputError, StorageError
from recompress.ledger import Ledger, read_lines, verify
from recompress.ledger.anchor import check_head
from recompress.policy import Approval
from recompress.records import ApprovalRule
from recompress.signing import public_pem, read_public_key
from tests.evidence.people import People, people  # noqa: F401
from tests.promotion.conftest import Clock

BOB, EVE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ASKED = ApprovalRule(required=True, not_the_author=True)
SIGNED = ASKED.model_copy(update={"signed": True, "signers": {"bob": public_pem(BOB)}})


def key_file(place: Path, key: Ed25519PrivateKey, mode: int = 0o600) -> str:
    place.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    place.chmod(mode)
    return str(place)


def test_a_plan_is_shown_approved_and_carried_out_and_leaves_evidence(people: People) -> None:  # noqa: F811
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


def test_the_digest_counts_in_full(people: People) -> None:  # noqa: F811
    plan = people.propose(1, ASKED)
    for command in (("approve",), ("reject", "--reason", "x")):
        for wrong in (plan[:12], plan[:-1], ("0" if plan[0] != "0" else "1") + plan[1:], plan.upper(), "", "0" * 64):
            assert "no plan has the digest" in people.refused(command[0], wrong, *command[1:], code=2, actor="bob")
    people.ask("approve", people.propose(2, ASKED), actor="bob")
    for wrong in (("0" if plan[0] != "0" else "1") + plan[1:], plan[:20] + "".join("0" if d != "0" else "1" for d in plan[20:23]) + plan[23:], plan[:-1]):
        for command in (("approve", wrong), ("reject", wrong, "--reason", "x"), ("promote", wrong)):
            told = people.refused(*command, code=2, actor="bob")
            assert f"is {plan} meant? `recompress approve` shows every plan that waits" in told, command
            told = people.refused(command[0], "0" * 64, *command[2:], code=2, actor="bob")
            assert "meant?" not in told
            assert "`recompress approve` shows every plan that waits" in told, command


def test_a_wrong_digit_of_an_approved_plan_is_hinted_at_where_it_is_carried_out(people: People) -> None:  # noqa: F811
    plan = people.propose(1, ASKED)
    people.ask("approve", plan, actor="bob")
    wrong = plan[:-1] + ("0" if plan[-1] != "0" else "1")
    assert f"is {plan} meant?" in people.refused("promote", wrong, code=2)
    people.ask("promote", plan)
    assert "nothing waits for anybody now" in people.refused("promote", wrong, code=2), "a plan that has ended is not meant"


@pytest.mark.parametrize("author", ["ada", "Ada", " ADA "])
def test_the_author_may_not_approve(people: People, author: str) -> None:  # noqa: F811
    assert "asks for the approval of somebody else" in people.refused("approve", people.propose(1, ASKED), code=4, actor=author)


def test_an_approval_is_used_once_and_a_plan_that_ended_stays_ended(people: People) -> None:  # noqa: F811
    plan = people.propose(1, ASKED)
    people.ask("approve", plan, actor="bob")
    assert "was approved by bob already" in people.refused("approve", plan, code=4, actor="carol")
    people.ask("promote", plan)
    assert "nothing is left to decide" in people.refused("approve", plan, code=4, actor="bob")
    assert "nothing is left to decide" in people.refused("reject", plan, "--reason", "late", code=4, actor="bob")


def test_a_rejection_needs_a_reason_and_is_the_end(people: People) -> None:  # noqa: F811
    plan = people.propose(1, ASKED)
    assert "needs a reason" in people.refused("reject", plan, "--reason", "  ", code=2, actor="bob")
    assert people.call("reject", plan)[0] == 2, "--reason is missing"
    assert people.ask("reject", plan, "--reason", "not before Monday", actor="bob")["by"] == "bob"
    assert "is rejected by bob" in people.refused("promote", plan, code=4)
    assert "is rejected by bob" in people.refused("approve", plan, code=4, actor="carol")


def test_a_signed_approval(people: People, tmp_path: Path) -> None:  # noqa: F811
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
def clock(people: People, monkeypatch: pytest.MonkeyPatch) -> Clock:  # noqa: F811
    """The time by which every command acts."""
    import tasks.audit

    told = Clock()
    people.ledger.clock = told
    monkeypatch.setattr(tasks.audit, "Ledger", partial(Ledger, clock=told))
    return told


@pytest.mark.parametrize("rule", [ASKED, SIGNED])
def test_an_approval_that_expired_carries_nothing_out(people: People, tmp_path: Path, clock: Clock, rule: ApprovalRule) -> None:  # noqa: F811
    key = ("--key", key_file(tmp_path / "bob.pem", BOB)) if rule.signed else ()
    plan = people.propose(1, rule.model_copy(update={"expires_after_hours": 24.0}))
    told = people.ask("approve", plan, *key, actor="bob")
    assert (told["expires"], told["signed"]) == ("2026-11-21T12:00:00.000000Z", rule.signed)
    clock.wait(24)
    code, _, err = people.call("promote", plan)
    assert (code, f"the approval of plan {plan[:12]}… by bob expired at 2026-11-21T12:00:00.000000Z; run again, and ask again" in err) == (4, True)
    for command in (("promote", plan), ("approve", plan, *key), ("reject", plan, "--reason", "late")):
        assert "is expired" in people.refused(*command, code=4, actor="bob")
    assert people.registry.champion("ner") is None
    assert people.propose(1, rule.model_copy(update={"expires_after_hours": 24.0})) != plan, "the next run asks again"


def test_a_plan_that_waited_too_long_waits_no_more(people: People, clock: Clock) -> None:  # noqa: F811
    plan = people.propose(1, ASKED.model_copy(update={"expires_after_hours": 24.0}))
    assert [waiting["waits_until"] for waiting in people.ask("approve")] == ["2026-11-21T12:00:00.000000Z"]
    clock.wait(24)
    assert people.ask("approve") == [], "nobody is asked what can no longer be approved"
    code, _, err = people.call("approve", plan, actor="bob")
    assert (code, "has waited since 2026-11-20T12:00:00.000000Z, longer than 24 hours, and expired; run again, and ask again" in err) == (4, True)
    assert "is expired" in people.refused("promote", plan, code=4)


def test_keys_that_are_no_approvers_keys(people: People, tmp_path: Path) -> None:  # noqa: F811
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
    from tasks.keys import approval_rule

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


def test_going_back(people: People) -> None:  # noqa: F811
    people.promote(1)
    assert "has no earlier champion" in people.refused("rollback", "ner", "--reason", "slow", code=2)
    people.promote(2)
    assert people.call("rollback", "ner")[0] == 2, "--reason is missing"
    assert "needs a reason" in people.refused("rollback", "ner", "--reason", " ", code=2)
    assert "never was champion; these were: 1, 2" in people.refused("rollback", "ner", "--to", "9", "--reason", "slow", code=2)
    assert "no version ever was" in people.refused("rollback", "none", "--to", "9", "--reason", "slow", code=2)
    assert people.ask("rollback", "ner", "--reason", "slow on phones")["version"] == "1"
    folders = sorted(path.name for path in (people.root / "evidence").iterdir())
    assert folders[:2] == ["ner-v1", f"ner-v1-rollback-{people.ledger.head().sequence}"]
    assert people.ask("audit", "verify")["holds"] is True


def test_going_back_asks_the_same_people(people: People) -> None:  # noqa: F811
    people.promote(1, ASKED)
    people.promote(2, ASKED)
    code, _, err = people.call("rollback", "ner", "--reason", "slow")
    assert (code, "waits for an approval" in err) == (6, True)
    [waiting] = people.ask("approve")
    assert waiting["plan"]["kind"] == "rollback"
    people.ask("approve", waiting["digest"], actor="bob")
    assert people.ask("promote", waiting["digest"])["version"] == "1"


def test_a_bundle_that_a_crash_prevented_is_made_by_whoever_comes_next(people: People) -> None:  # noqa: F811
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


def test_evidence_that_cannot_be_written_does_not_undo_the_promotion(people: People, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
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


def test_a_team_gives_its_own_keys(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from recompress.evidence.model_signature import model_key

    people.promote(1)
    monkeypatch.setenv("RECOMPRESS_SIGNING_KEY", key_file(tmp_path / "team.pem", BOB))
    monkeypatch.setenv("RECOMPRESS_MODEL_SIGNING_KEY", str(model_key(tmp_path / "team", "models")))
    place = people.ask("audit", "bundle", "ner@1")["bundle"]
    (tmp_path / "bob.pem").write_text(public_pem(BOB))
    assert people.ask("audit", "verify", place, "--key", str(tmp_path / "bob.pem"))["version"] == "1"
    assert not (people.root / "keys" / "recompress.pem").exists()
    assert (people.root / "keys" / "recompress.pub.pem").read_text() == public_pem(BOB)


def test_bundles_of_a_former_key_still_verify_once_it_is_named(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    former = (people.root / "keys" / "recompress.pub.pem").read_text()
    monkeypatch.setenv("RECOMPRESS_SIGNING_KEY", key_file(tmp_path / "new.pem", BOB))
    assert "does not come from the key" in people.refused("audit", "verify", code=5)
    (people.root / "keys" / "recompress-2026.pub.pem").write_text(former)
    assert people.ask("audit", "verify")["anchors"] == 2


def test_a_bundle_verifies_elsewhere_by_the_public_key_alone(people: People, tmp_path: Path) -> None:  # noqa: F811
    people.promote(1)
    archive = tmp_path / "evidence.zip"
    people.ask("audit", "bundle", "ner@champion", "--zip", str(archive), "--with-model")
    shutil.copy(people.root / "keys" / "recompress.pub.pem", tmp_path / "public.pem")
    elsewhere = People(tmp_path / "elsewhere")
    told = elsewhere.ask("audit", "verify", str(archive), "--key", str(tmp_path / "public.pem"))
    assert any("files of the model" in line for line in told["checked"])
    assert "there is no key to check with" in elsewhere.refused("audit", "verify", str(archive), code=2)
    (tmp_path / "eve.pem").write_text(public_pem(EVE))
    assert "does not come from the key" in elsewhere.refused("audit", "verify", str(archive), "--key", str(tmp_path / "eve.pem"), code=5)
    assert "not a public key" in elsewhere.refused("audit", "verify", str(archive), "--key", str(archive), code=2)
    assert "there is no bundle" in elsewhere.refused("audit", "verify", str(tmp_path / "none"), "--key", str(tmp_path / "eve.pem"), code=2)
    assert "go with a BUNDLE" in elsewhere.refused("audit", "verify", "--key", str(tmp_path / "eve.pem"), code=2)
    assert "exists already" in people.refused("audit", "bundle", "ner@1", "--zip", str(archive), code=2)


def test_verify_names_what_does_not_hold_and_ends_with_five(people: People) -> None:  # noqa: F811
    people.promote(1)
    people.promote(2)
    for version in ("ner@1", "ner@2"):
        people.ask("audit", "bundle", version)
    assert people.ask("audit", "verify")["holds"] is True

    people.registry.set_champion("ner", "1")
    report = people.ask("audit", "verify", code=5)
    assert [t["where"] for t in report["troubles"]] == ["ner"]
    code, out, err = people.call("audit", "verify")
    assert code == 5
    assert "moved by other means" in out
    assert "recompress: ner: the alias champion names version 1" in err
    people.registry.set_champion("ner", "2")

    card = people.root / "evidence" / "ner-v1" / "model-card.md"
    text = card.read_text()
    card.write_text(text.replace("0.75", "0.95"))
    assert "evidence/ner-v1: model-card.md: it was changed" in people.refused("audit", "verify", code=5)
    card.write_text(text)
    assert people.call("audit", "verify")[0] == 0


def test_a_cut_ledger_is_shown_by_the_bundles_alone(people: People) -> None:  # noqa: F811
    """Somebody who can write the database and the registry, but not every copy of the evidence."""
    import sqlite3

    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    tags = people.registry.root / "ner" / "tags-1.json"
    tags.write_text(json.dumps({name: value for name, value in json.loads(tags.read_text()).items() if name != "recompress.ledger_head"}))
    with sqlite3.connect(people.root / "ledger" / "ledger.db") as connection:
        connection.execute("DROP TRIGGER recompress_no_delete")
        connection.execute("DELETE FROM recompress_ledger WHERE sequence > 4")
    connection.close()
    code, out, _ = people.call("audit", "verify")
    assert code == 5
    assert "ledger record 5: it is missing; the ledger ends before it, and evidence/ner-v1 names record 7" in out


def test_questions(people: People) -> None:  # noqa: F811
    people.promote(1)
    people.promote(2, ASKED)
    assert len(people.ask("audit", "log")) == people.ledger.head().sequence
    assert people.ask("audit", "log", "--model", "ner")[-1]["kind"] == "promotion-committed"
    assert "did you mean 'ner'" in people.refused("audit", "log", "--model", "neer", code=2)

    last = people.ledger.entries()[-1].time
    assert [reign["version"] for reign in people.ask("audit", "who-was", "ner", "--at", last)["champions"]] == ["2"]
    assert {reign["version"] for reign in people.ask("audit", "who-was", "ner", "--at", last[:10])["champions"]} >= {"2"}
    assert people.ask("audit", "who-was", "ner", "--at", "2020-01-01")["champions"] == []
    assert "had no champion then" in people.call("audit", "who-was", "ner", "--at", "2020-01-01")[1]
    assert "is still to come" in people.refused("audit", "who-was", "ner", "--at", "2099-01-01", code=2)
    assert "is no time" in people.refused("audit", "who-was", "ner", "--at", "tuesday", code=2)

    told = people.ask("audit", "trace", "ner@champion")
    assert (told["version"], told["approver"], told["metrics"]["f1"]) == ("2", "bob", 0.75)
    for digest in (
        told["data"]["sha256"],
        told["data"]["md5"],
        told["code"]["git_commit"],
        told["base"]["revision"],
        told["policy_sha256"],
        told["recipe"]["sha256"],
    ):
        assert digest in people.call("audit", "trace", "ner")[1]
    assert people.ask("audit", "trace", "ner/1")["version"] == "1"
    assert "there is no version 9" in people.refused("audit", "trace", "ner@9", code=2)
    assert "there is no champion of 'none'" in people.refused("audit", "trace", "none@champion", code=2)
    assert "names no version" in people.refused("audit", "trace", "ner@latest", code=2)


def test_the_ledger_can_be_carried_away(people: People, tmp_path: Path) -> None:  # noqa: F811
    people.promote(1)
    told = people.ask("audit", "export", str(tmp_path / "ledger.jsonl"))
    signed = json.loads((tmp_path / "ledger.jsonl.head.json").read_bytes())
    head = check_head(signed, read_public_key(people.root / "keys" / "recompress.pub.pem"))
    assert verify(read_lines(tmp_path / "ledger.jsonl"), head=head) == people.ledger.head()
    assert told["records"] == head.sequence
    assert "exists already" in people.refused("audit", "export", str(tmp_path / "ledger.jsonl"), code=2)


def test_where_there_is_no_ledger_nothing_is_made(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for command in (["audit", "log"], ["approve", "0" * 64], ["rollback", "ner", "--reason", "slow"]):
        done = CliRunner().invoke(main, ["--root", str(tmp_path), *command])
        assert done.exit_code == 2
        assert "there is no ledger at" in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_a_bundle_is_checked_outside_of_any_project(tmp_path: Path, root: Path) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    golden = root / "tests" / "golden"
    done = CliRunner().invoke(main, ["--root", str(tmp_path), "audit", "verify", str(golden / "bundle-1"), "--key", str(golden / "bundle-1.pub.pem")])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith("Everything holds.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_another_process_holds(people: People, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from recompress.ledger import Ledger
    from tasks.project import Project

    plan = people.propose(1, ASKED)
    impatient = Ledger(people.root / "ledger" / "ledger.db", timeout=0.2)
    monkeypatch.setattr(Project, "ledger", property(lambda self: impatient))
    with people.ledger.transaction():
        code, _, err = people.call("approve", plan, actor="bob")
    assert (code, "another process is writing" in err) == (1, True)
    assert people.ledger.last("approval") is None


def test_a_registry_that_does_not_answer(people: People, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from tasks.project import Project

    class Away:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            def ask(*_: object) -> None:
                raise StorageError("the registry does not answer; check MLFLOW_TRACKING_URI")

            return ask

    people.promote(1)
    plan = people.propose(2)
    monkeypatch.setattr(Project, "registry", property(lambda self: Away()))
    for command in (("promote", plan), ("audit", "verify"), ("audit", "trace", "ner@champion"), ("rollback", "ner", "--reason", "slow")):
        assert "the registry does not answer" in people.refused(*command, code=1)


def test_json_is_one_object_also_when_it_fails(people: People) -> None:  # noqa: F811
    told = people.ask("approve", "0" * 64, code=2)
    assert (told["exit_code"], told["kind"]) == (2, "InputError")
