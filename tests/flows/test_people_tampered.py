"""Somebody has been at the ledger: every command says so in one line, names the record or the version, ends with 5, and changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from recompress.ledger import Entry
from recompress.records import ApprovalRule
from tests.evidence.people import People
from tests.ledger.chains import forge
from tests.promotion.stage import model_directory

ASKED = ApprovalRule(required=True, not_the_author=True)
ASKING = (("audit", "log"), ("audit", "who-was", "ner", "--at", "2026-11-20"), ("audit", "trace", "ner@champion"), ("audit", "verify"))


def commands(plan: str, place: Path) -> list[tuple[str, ...]]:
    return [
        *ASKING,
        ("audit", "bundle", "ner@1"),
        ("audit", "export", str(place / "out.jsonl")),
        ("audit", "guard"),
        ("approve",),
        ("approve", plan),
        ("reject", plan, "--reason", "slow"),
        ("promote", plan),
        ("rollback", "ner", "--reason", "slow"),
        ("reproduce", "ner@1"),
    ]


def database(people: People) -> Path:
    return people.root / "ledger" / "ledger.db"


def rewrite(people: People, entries: list[Entry]) -> None:
    """Put other records in the place of those that are there, the triggers as they were."""
    with sqlite3.connect(database(people)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM recompress_ledger")
        connection.executemany("INSERT INTO recompress_ledger VALUES (?, ?, ?, ?, ?, ?, ?)", entries)
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()


def one_line(people: People, *command: str, code: int = 5) -> str:
    """The one line of an error on stderr; with ``--json``, one object that says the same code."""
    exit_code, out, err = people.call(*command, actor="bob")
    assert exit_code == code, (command, exit_code, out, err)
    assert "Traceback" not in err
    [line] = [line for line in err.splitlines() if line.startswith("recompress: ")]
    if command[0] != "reproduce":
        exit_code, out, _ = people.call(*command, "--json", actor="bob")
        assert exit_code == code
        answer = json.loads(out)
        assert answer.get("exit_code", code) == code
    return line


@pytest.mark.parametrize("text", ["[1]", "{}", "no JSON", '{"plam":"x"}', '{"plan":7,"model":["ner"],"version":null}'])
@pytest.mark.parametrize("kind", ["promotion-proposed", "promotion-judged", "promotion-intent", "promotion-committed"])
def test_a_malformed_record_is_named_by_every_command(people: People, tmp_path: Path, kind: str, text: str) -> None:
    people.promote(1)
    waiting = people.propose(2, ASKED)
    entries = people.ledger.entries()
    number = next(entry.sequence for entry in entries if entry.kind == kind)
    rewrite(people, forge(entries, number, body_text=text))
    head = people.ledger.head()
    for command in commands(waiting, tmp_path):
        assert f"ledger record {number}: its body " in one_line(people, *command), command
    assert people.ledger.head() == head


def test_without_tampering_the_same_commands_work(people: People, tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    people.promote(1)
    waiting = people.propose(2, ASKED)
    rewrite(people, people.ledger.entries())
    assert [people.call(*command, actor="bob")[0] for command in commands(waiting, tmp_path)[:9]] == [0] * 9


def delete(file: Path) -> None:
    for path in file.parent.iterdir():
        path.unlink()


def cut_to_nothing(file: Path) -> None:
    delete(file)
    file.write_bytes(b"")


def empty(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER recompress_no_delete")
        connection.execute("DELETE FROM recompress_ledger")
    connection.close()


@pytest.mark.parametrize("remove", [delete, cut_to_nothing, empty])
def test_a_ledger_that_is_gone_is_missed_by_whoever_keeps_a_head_of_it(people: People, tmp_path: Path, remove: Callable[[Path], None]) -> None:
    people.promote(1)
    head = people.ledger.head()
    remove(database(people))
    for command in commands("0" * 64, tmp_path):
        line = one_line(people, *command)
        assert f"the tag of version 1 of ner names its record {head.sequence} ({head.hash[:12]}…)" in line, command
    assert people.registry.champion("ner") == "1"


def test_a_bundle_alone_misses_it_too(people: People) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    shutil.rmtree(people.registry.root / "ner")
    delete(database(people))
    for command in ASKING[:3]:
        assert "evidence/ner-v1 names its record 8" in one_line(people, *command)
    assert "evidence/ner-v1 names its record 8" in one_line(people, "audit", "verify")
    shutil.rmtree(people.root / "evidence")
    assert "there is no ledger at" in one_line(people, "audit", "verify", code=2)


@pytest.mark.parametrize("remove", [delete, cut_to_nothing])
def test_where_nobody_keeps_a_head_there_simply_is_no_ledger_yet(people: People, remove: Callable[[Path], None]) -> None:
    people.propose(1, ASKED)
    remove(database(people))
    for command in (*ASKING[:2], ASKING[3], ("approve",)):
        assert "there is no ledger at" in one_line(people, *command, code=2)


@pytest.mark.parametrize("size", [5, 100, 5000, None])
def test_a_file_that_is_no_database_is_one_line(people: People, tmp_path: Path, size: int | None) -> None:
    people.promote(1)
    with sqlite3.connect(database(people)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = database(people).read_bytes()
    delete(database(people))
    database(people).write_bytes(data[:size] if size else b"nothing of this is a database\n" * 1000)
    for command in commands("0" * 64, tmp_path):
        assert "is damaged, or is no ledger" in one_line(people, *command), command


def test_a_champion_that_the_ledger_never_promoted_has_no_trace(people: People) -> None:
    people.promote(1)
    people.promote(2)
    tags = people.registry.tags("ner", "2") or {}
    people.registry.create_version("ner", model_directory(people.root / "forged", 9), tags)
    people.registry.set_champion("ner", "3")
    assert "version 3 of ner has the alias champion, but this ledger promoted no such version" in one_line(people, "audit", "trace", "ner@champion")
    assert "was not promoted by this ledger; these were: 1, 2" in one_line(people, "audit", "trace", "ner@3", code=2)
    people.registry.set_champion("ner", "1")
    code, out, err = people.call("audit", "trace", "ner")
    assert (code, "the alias champion names version 1, the ledger version 2" in out, "disagree" in err) == (5, True, True)
    assert people.call("audit", "trace", "ner@1")[0] == 0
    people.registry.set_champion("ner", None)
    assert "nothing has the alias champion of ner, but by the ledger it is version 2" in one_line(people, "audit", "trace", "ner")


def test_a_registry_that_was_lost_counts_from_one_again_and_each_promotion_keeps_its_own_evidence(people: People) -> None:
    people.promote(1)
    people.ask("audit", "bundle", "ner@1")
    shutil.rmtree(people.registry.root / "ner")
    assert "the alias champion names none, but by the ledger it should be version 1" in one_line(people, "audit", "verify")
    assert "version 1 of ner was deleted" in one_line(people, "rollback", "ner", "--to", "1", "--reason", "it was lost", code=4)
    plan = people.promote(2)
    place = Path(people.ask("audit", "bundle", "ner@1")["bundle"])
    assert place.name == f"ner-v1-{people.ledger.head().sequence}"
    assert people.ask("audit", "verify", str(place))["plan"] == plan
    assert people.ask("audit", "verify")["troubles"] == []


@pytest.mark.parametrize("statement", ["DROP TRIGGER recompress_no_update", "DROP TRIGGER recompress_in_order", "ALTER"])
def test_a_database_that_no_longer_refuses_changes_is_reported_until_it_does_again(people: People, statement: str) -> None:
    people.promote(1)
    with sqlite3.connect(database(people)) as connection:
        if statement == "ALTER":
            connection.execute("DROP TRIGGER recompress_no_delete")
            connection.execute("CREATE TRIGGER recompress_no_delete BEFORE DELETE ON recompress_ledger BEGIN SELECT 1; END")
        else:
            connection.execute(statement)
    connection.close()
    line = one_line(people, "audit", "verify")
    assert "its database no longer refuses changes: recompress_" in line
    assert "recompress audit guard" in line
    assert people.ask("audit", "guard")["head"] == str(people.ledger.head())
    assert people.ask("audit", "verify")["holds"] is True
