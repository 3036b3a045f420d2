"""What people ask: whether all holds, who was champion, where it came from; and what a busy ledger or a silent registry answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.integrity.signing import read_public_key
from recompress.ledger import Ledger, read_lines, verify
from recompress.ledger.anchor import check_head
from recompress.records import ApprovalRule
from tests.evidence.people import People

ASKED = ApprovalRule(required=True, not_the_author=True)


def test_verify_names_what_does_not_hold_and_ends_with_five(people: People) -> None:
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


def test_a_cut_ledger_is_shown_by_the_bundles_alone(people: People) -> None:
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
    assert "ledger record 5: it is missing; the ledger ends before it, and evidence/ner-v1 names record 8" in out


def test_questions(people: People) -> None:
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

    trace = people.ask("audit", "trace", "ner@champion")
    assert (trace["version"], trace["approver"], trace["metrics"]["f1"]) == ("2", "bob", 0.75)
    for digest in (
        trace["data"]["sha256"],
        trace["data"]["md5"],
        trace["code"]["git_commit"],
        trace["base"]["revision"],
        trace["policy_sha256"],
        trace["recipe"]["sha256"],
    ):
        assert digest in people.call("audit", "trace", "ner")[1]
    assert people.ask("audit", "trace", "ner/1")["version"] == "1"
    assert "there is no version 9" in people.refused("audit", "trace", "ner@9", code=2)
    assert "there is no champion of 'none'" in people.refused("audit", "trace", "none@champion", code=2)
    assert "names no version" in people.refused("audit", "trace", "ner@latest", code=2)


def test_the_ledger_can_be_carried_away(people: People, tmp_path: Path) -> None:
    people.promote(1)
    summary = people.ask("audit", "export", str(tmp_path / "ledger.jsonl"))
    signed = json.loads((tmp_path / "ledger.jsonl.head.json").read_bytes())
    head = check_head(signed, read_public_key(people.root / "keys" / "recompress.pub.pem"))
    assert verify(read_lines(tmp_path / "ledger.jsonl"), head=head) == people.ledger.head()
    assert summary["records"] == head.sequence
    assert "exists already" in people.refused("audit", "export", str(tmp_path / "ledger.jsonl"), code=2)


def test_where_there_is_no_ledger_nothing_is_made(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for command in (["audit", "log"], ["approve", "0" * 64], ["rollback", "ner", "--reason", "slow"]):
        result = CliRunner().invoke(main, ["--root", str(tmp_path), *command])
        assert result.exit_code == 2
        assert "there is no ledger at" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_a_bundle_is_checked_outside_of_any_project(tmp_path: Path, root: Path) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    golden = root / "tests" / "golden"
    result = CliRunner().invoke(main, ["--root", str(tmp_path), "audit", "verify", str(golden / "bundle-1"), "--key", str(golden / "bundle-1.pub.pem")])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("Everything holds.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_another_process_holds(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.running.project import Project

    plan = people.propose(1, ASKED)
    impatient = Ledger(people.root / "ledger" / "ledger.db", timeout=0.2)
    monkeypatch.setattr(Project, "ledger", property(lambda self: impatient))
    with people.ledger.transaction():
        code, _, err = people.call("approve", plan, actor="bob")
    assert (code, "another process is writing" in err) == (1, True)
    assert people.ledger.last("approval") is None


def test_a_registry_that_does_not_answer(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.running.project import Project

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


def test_json_is_one_object_also_when_it_fails(people: People) -> None:
    error = people.ask("approve", "0" * 64, code=2)
    assert (error["exit_code"], error["kind"]) == (2, "InputError")
