"""Somebody is careless or means harm, and the commands are what they have: evidence in the wrong place, a ledger that was cut, text that is none."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recompress.errors import IntegrityError
from recompress.evidence.archive import unpack
from recompress.records import ApprovalRule
from tasks.steps.judge import spent_loss
from tests.evidence.people import People


def two_with_evidence(people: People) -> Path:
    """Two promotions and their bundles; the folder that holds them."""
    for seed in (1, 2):
        people.promote(seed)
        people.ask("audit", "bundle", f"ner@{seed}")
    return people.root / "evidence"


@pytest.mark.parametrize("link", [False, True])
def test_a_bundle_in_the_place_of_another_is_named(people: People, tmp_path: Path, link: bool) -> None:
    """Each of them holds by itself."""
    evidence = two_with_evidence(people)
    shutil.rmtree(evidence / "ner-v2")
    (evidence / "ner-v2").symlink_to("ner-v1") if link else shutil.copytree(evidence / "ner-v1", evidence / "ner-v2")
    message = "evidence/ner-v2 holds the evidence of ner version 1, plan "
    assert message in people.refused("audit", "verify", code=5)
    assert message in people.refused("audit", "bundle", "ner@2", "--zip", str(tmp_path / "evidence.zip"), code=5)
    assert not (tmp_path / "evidence.zip").exists()
    (evidence / "ner-v2").rename(tmp_path / "moved away")
    people.ask("audit", "bundle", "ner@2")
    assert people.ask("audit", "verify")["troubles"] == []


def test_nothing_is_asked_of_a_ledger_and_nothing_decided_that_lacks_what_a_bundle_names(people: People, tmp_path: Path) -> None:
    """An old copy of the ledger, put back where a newer one was: it chains, and its answers are wrong."""
    evidence = two_with_evidence(people)
    waiting = people.propose(3, ApprovalRule(required=True))
    database = people.root / "ledger" / "ledger.db"
    with sqlite3.connect(database) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM recompress_ledger WHERE sequence > 9")
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()
    queries = [("log",), ("who-was", "ner", "--at", "2026-11-20"), ("trace", "ner@1"), ("guard",), ("export", str(tmp_path / "out.jsonl")), ("bundle", "ner@1")]
    for command in [*(("audit", *query) for query in queries), ("approve",), ("reject", waiting, "--reason", "slow"), ("rollback", "ner", "--reason", "slow")]:
        assert "ledger record 10: it is missing; the ledger ends at 9, and record 18 is anchored elsewhere" in people.refused(*command, code=5), command
    assert not list(tmp_path.glob("out.jsonl*"))
    shutil.rmtree(evidence)
    assert people.call("audit", "log")[0] == 0


def test_an_export_that_cannot_be_signed_or_written_leaves_nothing(people: People, tmp_path: Path) -> None:
    two_with_evidence(people)
    key, out = people.root / "keys" / "recompress.pem", tmp_path / "out.jsonl"
    shutil.copy(key, tmp_path / "kept.pem")
    key.write_text("no key\n")
    assert "is not a private key" in people.refused("audit", "export", str(out), code=5)
    assert not list(tmp_path.glob("out.jsonl*"))
    shutil.copy(tmp_path / "kept.pem", key)
    assert "cannot be written to" in people.refused("audit", "export", str(tmp_path / "nowhere" / "out.jsonl"), code=1)
    assert people.ask("audit", "export", str(out))["records"] == 18
    assert {file.name for file in tmp_path.glob("*out.jsonl*")} == {"out.jsonl", "out.jsonl.head.json"}


@pytest.mark.parametrize(
    "command",
    [
        ("approve", "4\udcff6"),
        ("promote", "\udcff"),
        ("reject", "46", "--reason", "slow\udcff"),
        ("rollback", "n\udcff", "--reason", "slow"),
        ("rollback", "ner", "--reason", "slow on \udcffs"),
        ("rollback", "ner", "--to", "\udcff", "--reason", "slow"),
        ("audit", "trace", "n\udcff"),
        ("predict", "ner", "a \udcff"),
    ],
)
def test_bytes_that_are_no_text_are_one_line(people: People, command: tuple[str, ...]) -> None:
    people.promote(1)
    people.promote(2)
    assert "is not UTF-8 text" in people.refused(*command, code=2)
    assert people.ask(*command, code=2)["exit_code"] == 2


@pytest.mark.parametrize("reason", ["slow\x1b[2J", "slow\rfast", "slow \u202etsaf", "slow\x00", "\x9b31m"])
def test_a_reason_paints_nothing_over_the_plan_that_people_approve(people: People, reason: str) -> None:
    people.promote(1)
    people.promote(2)
    waiting = people.propose(3, ApprovalRule(required=True))
    assert "steers how a terminal shows it" in people.refused("rollback", "ner", "--reason", reason, code=2)
    assert "steers how a terminal shows it" in people.refused("reject", waiting, "--reason", reason, code=2)
    people.ask("reject", waiting, "--reason", "misses Yorùbá\nand \u200dHausa names")


@pytest.mark.parametrize("required", [True, False])
def test_a_plan_that_was_never_carried_out_changes_nothing_about_who_is_asked(people: People, required: bool) -> None:
    for seed in (1, 2):
        people.promote(seed, ApprovalRule(required=required))
    people.ask("reject", people.propose(3, ApprovalRule(required=not required)), "--reason", "not this one")
    assert people.call("rollback", "ner", "--reason", "slow")[0] == (6 if required else 0)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_changed_bytes_is_unpacked_or_refused_and_never_a_traceback(tmp_path: Path, method: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name in ("bundle.json", "plan.json"):
            archive.writestr(f"ner-v1/{name}", json.dumps({"text": "habari za asubuhi " * 30, "name": name}))
    data, draw = packed.getvalue(), random.Random(5)
    for number in range(300):
        changed = bytearray(data)
        changed[draw.choice([draw.randrange(len(data)), len(data) - 1 - draw.randrange(160)])] = draw.randrange(256)
        file, folder = tmp_path / "evidence.zip", tmp_path / str(number)
        file.write_bytes(changed)
        folder.mkdir()
        with suppress(IntegrityError):
            unpack(file, folder)
            assert method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def test_a_signing_key_that_was_lost_is_not_replaced_unseen(people: People, tmp_path: Path) -> None:
    """Nobody would believe any more what the lost one has signed."""
    two_with_evidence(people)
    keys = people.root / "keys"
    (keys / "recompress.pem").unlink()
    before = (keys / "recompress.pub.pem").read_text()
    assert "keys/recompress.pem is gone" in people.refused("audit", "export", str(tmp_path / "out.jsonl"), code=5)
    assert (keys / "recompress.pub.pem").read_text() == before
    assert not (keys / "recompress.pem").exists()
    (keys / "recompress.pub.pem").rename(keys / "recompress-2026.pub.pem")
    people.ask("audit", "export", str(tmp_path / "out.jsonl"))
    assert people.ask("audit", "verify")["troubles"] == []


def test_a_ledger_that_was_lost_is_taken_over_from_its_export_whole_or_not_at_all(people: People, tmp_path: Path) -> None:
    two_with_evidence(people)
    (people.root / "dvc.yaml").touch()
    out, bad = tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    records = people.ask("audit", "export", str(out))["records"]
    bad.write_bytes(out.read_bytes().replace(b"promotion-verified", b"promotion-verifiee", 1))
    shutil.rmtree(people.root / "ledger")
    for file, code in ((bad, 5), (tmp_path / "none.jsonl", 2)):
        exit_code, _, err = people.call("audit", "import", str(file))
        assert (exit_code, err.count("\n")) == (code, 1), err
        assert not (people.root / "ledger").exists()
    assert people.ask("audit", "import", str(out)) == {"added": records}
    assert people.ask("audit", "import", str(out)) == {"added": 0}
    assert people.ask("audit", "verify")["troubles"] == []


def test_the_budget_does_not_begin_again_where_the_alias_was_taken_away(people: People) -> None:
    run = SimpleNamespace(ledger=people.ledger, plan=SimpleNamespace(recipe=SimpleNamespace(register_=SimpleNamespace(model="ner"))))
    nothing: Any = SimpleNamespace(version="")
    assert spent_loss(cast(Any, run), nothing) == 0.0
    people.promote(1)
    spent = spent_loss(cast(Any, run), cast(Any, SimpleNamespace(version="1")))
    assert spent
    assert spent_loss(cast(Any, run), nothing) == spent
