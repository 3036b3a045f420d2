from __future__ import annotations

import os
import signal
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.ledger import GENESIS, Head, Ledger, LedgerBroken, Writer, read_lines, verify, write_lines
from tests.children import Child


@pytest.fixture
def ledger(where: Path | str) -> Ledger:
    return Ledger(where, timeout=5, clock=lambda: datetime(2026, 11, 20, 12, 0, tzinfo=UTC))


def fill(ledger: Ledger, count: int) -> list[Head]:
    return [ledger.append("verdict", {"model": f"m_{i % 3}", "number": i, "share": i / 7, "word": "é\u2028\x00"}, actor="ada").head for i in range(count)]


def test_records_are_chained_and_come_back_as_they_were_written(ledger: Ledger) -> None:
    assert ledger.head() == Head(0, GENESIS)
    first = ledger.append("data-accepted", {"data": "d" * 64}, actor="ada")
    second = ledger.append("verdict", {"passed": True, "share": 1e-7}, actor="bob")
    assert (first.sequence, first.previous) == (1, GENESIS)
    assert (second.sequence, second.previous) == (2, first.hash)
    assert second.time == "2026-11-20T12:00:00.000000Z"
    assert second.body == {"passed": True, "share": 1e-7}
    assert ledger.entries() == [first, second]
    assert ledger.verify(anchors=[first.head], head=second.head) == ledger.head() == second.head


def test_heads_that_were_kept_elsewhere_are_held_against_what_the_database_says(ledger: Ledger) -> None:
    heads = fill(ledger, 3)
    with pytest.raises(LedgerBroken, match="record 2: it is not the record that was anchored elsewhere"):
        ledger.verify(anchors=[Head(2, heads[0].hash)])
    with pytest.raises(LedgerBroken, match="record 4: it is missing; the ledger ends at 3"):
        ledger.verify(anchors=iter([Head(4, "f" * 64)]))
    with pytest.raises(LedgerBroken, match="record 3: it should not be there; the ledger ends at record 2 by its head"):
        ledger.verify(head=heads[1])


def test_a_clock_of_another_zone_is_recorded_in_utc(tmp_path: Path) -> None:
    east = timezone(timedelta(hours=3))
    ledger = Ledger(tmp_path / "ledger.db", clock=lambda: datetime(2026, 11, 20, 1, 30, tzinfo=east))
    assert ledger.append("verdict", {}, actor="ada").time == "2026-11-19T22:30:00.000000Z"


def test_entries_are_found_by_kind_and_by_what_their_body_says(ledger: Ledger) -> None:
    fill(ledger, 6)
    ledger.append("data-accepted", {"model": "mx1", "nested": {"model": "m_1"}}, actor="ada")
    assert [e.body["number"] for e in ledger.entries("verdict", model="m_1")] == [1, 4]
    assert ledger.entries(model="M_1") == []
    assert ledger.entries("data-accepted", model="m_1") == []
    assert ledger.last("verdict", model="m_1").body["number"] == 4  # type: ignore[union-attr]
    assert ledger.last("rejection") is None


@pytest.mark.parametrize(
    ("kind", "body", "actor", "message"),
    [
        ("verdikt", {}, "ada", "did you mean 'verdict'"),
        ("verdict", {"f1": float("nan")}, "ada", "cannot be said in JSON"),
        ("verdict", {"n": 2**60}, "ada", "cannot be said in JSON"),
        ("verdict", {"x": "y" * 300_000}, "ada", "the limit is 262,144"),
        ("verdict", {}, " ", "printable name"),
        ("verdict", {}, "ada\nbob", "printable name"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(ledger: Ledger, kind: str, body: dict[str, object], actor: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ledger.append(kind, body, actor=actor)
    assert ledger.head() == Head(0, GENESIS)


def test_a_block_that_raises_writes_nothing(ledger: Ledger) -> None:
    with pytest.raises(InputError), ledger.transaction() as writer:
        append_two(writer, "verdict", "verdikt")
    assert ledger.entries() == []


def append_two(writer: Writer, *kinds: str) -> None:
    for kind in kinds:
        writer.append(kind, {}, actor="ada")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recompress_ledger SET actor = 'eve' WHERE sequence = 2",
        "DELETE FROM recompress_ledger WHERE sequence = 3",
        "DELETE FROM recompress_ledger",
        "INSERT INTO recompress_ledger SELECT 9, time, actor, kind, body_text, 'x', 'y' FROM recompress_ledger WHERE sequence = 1",
        "INSERT INTO recompress_ledger SELECT 4, time, actor, kind, body_text, 'x', 'y' FROM recompress_ledger WHERE sequence = 1",
    ],
)
def test_the_database_itself_refuses_to_change_or_remove_a_record(ledger: Ledger, statement: str) -> None:
    fill(ledger, 3)
    before = ledger.entries()
    with pytest.raises(IntegrityError, match="append-only"), ledger._database.writing() as connection:
        connection.execute(text(statement))
    assert ledger.entries() == before


def test_truncate_and_replace_are_refused_too(ledger: Ledger) -> None:
    fill(ledger, 3)
    statement = (
        "INSERT OR REPLACE INTO recompress_ledger SELECT 2, time, 'eve', kind, body_text, previous, hash FROM recompress_ledger WHERE sequence = 2"
        if ledger._database.is_sqlite
        else "TRUNCATE recompress_ledger"
    )
    with pytest.raises(IntegrityError, match="append-only"), ledger._database.writing() as connection:
        connection.execute(text(statement))
    ledger.verify()


@pytest.mark.parametrize("how", ["drop", "switch off", "hollow out"])
def test_triggers_that_were_dropped_or_altered_are_missed_until_they_are_made_anew(ledger: Ledger, how: str) -> None:
    fill(ledger, 2)
    is_sqlite = ledger._database.is_sqlite
    name = "recompress_no_update" if is_sqlite else "recompress_rows"
    dropped = f"DROP TRIGGER {name}" + ("" if is_sqlite else " ON recompress_ledger")
    statements = {
        "drop": [dropped],
        "switch off": [f"ALTER TABLE recompress_ledger DISABLE TRIGGER {name}"],
        "hollow out": [dropped, f"CREATE TRIGGER {name} BEFORE UPDATE ON recompress_ledger BEGIN SELECT 1; END"]
        if is_sqlite
        else ["CREATE OR REPLACE FUNCTION recompress_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"],
    }
    if is_sqlite and how == "switch off":
        with pytest.raises(StorageError), ledger._database.writing() as connection:
            connection.exec_driver_sql(statements[how][0])  # no trigger of SQLite's can be
        assert ledger.missing_guards() == []
        return
    assert ledger.missing_guards() == []
    with ledger._database.writing() as connection:
        for statement in statements[how]:
            connection.exec_driver_sql(statement)
    assert name in ledger.missing_guards()
    assert ledger.guard() == ledger.head()
    assert ledger.missing_guards() == []
    with pytest.raises(IntegrityError, match="append-only"), ledger._database.writing() as connection:
        connection.execute(text("UPDATE recompress_ledger SET actor = 'eve' WHERE sequence = 2"))


def test_a_chain_that_does_not_hold_is_not_guarded(ledger: Ledger) -> None:
    fill(ledger, 2)
    with ledger._database.writing() as connection:
        connection.execute(text("DROP TRIGGER recompress_no_update" if ledger._database.is_sqlite else "DROP TRIGGER recompress_rows ON recompress_ledger"))
        connection.execute(text("UPDATE recompress_ledger SET actor = 'eve' WHERE sequence = 2"))
    with pytest.raises(LedgerBroken, match="record 2: it was changed"):
        ledger.guard()
    assert ledger.missing_guards()


def append_many(where: Path | str, name: str, count: int) -> None:
    ledger = Ledger(where, timeout=60)
    for i in range(count):
        ledger.append("verdict", {"number": i}, actor=name)


def test_processes_that_append_at_once_never_fork_the_chain(where: Path | str) -> None:
    """They race for the making of the ledger as well: it does not exist yet."""
    workers = [Child(target=append_many, args=(where, f"worker {i}", 10)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    ledger = Ledger(where)
    assert ledger.verify().sequence == 80
    for i in range(8):
        assert [e.body["number"] for e in ledger.entries() if e.actor == f"worker {i}"] == list(range(10))


def hold_and_die(where: Path | str, inside: str) -> None:
    ledger = Ledger(where)
    if inside == "lock":
        with ledger.lock():
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        with ledger.transaction() as writer:
            writer.append("verdict", {}, actor="ada")
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("inside", ["lock", "transaction"])
def test_a_killed_holder_lets_go_and_leaves_nothing(ledger: Ledger, where: Path | str, inside: str) -> None:
    worker = Child(target=hold_and_die, args=(where, inside))
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    with ledger.lock(timeout=5) as lock:
        lock.check()
        ledger.append("verdict", {}, actor="ada")
    assert ledger.verify().sequence == 1


def test_a_held_ledger_is_one_clear_line(ledger: Ledger, where: Path | str) -> None:
    impatient = Ledger(where, timeout=0.2)
    with ledger.transaction(), pytest.raises(StorageError, match=r"another process is writing to the ledger .* for longer than 0\.2 s") as refusal:
        impatient.append("verdict", {}, actor="ada")
    assert "\n" not in str(refusal.value)
    with ledger.lock(), pytest.raises(StorageError, match=r"another promotion holds the ledger's lock .* for longer than 0\.2 s"), impatient.lock(timeout=0.2):
        pass
    assert ledger.entries() == []


def test_a_reader_does_not_wait_for_a_writer(ledger: Ledger) -> None:
    fill(ledger, 2)
    with ledger.transaction() as writer:
        writer.append("verdict", {}, actor="ada")
        assert ledger.verify().sequence == 2


def test_bytes_in_the_place_of_text_are_found(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    fill(ledger, 2)
    with ledger._database.writing() as connection:
        connection.execute(text("DROP TRIGGER recompress_no_update"))
        connection.execute(text("UPDATE recompress_ledger SET actor = x'00ff' WHERE sequence = 2"))
    with pytest.raises(LedgerBroken, match="record 2: it was changed"):
        ledger.verify()


def test_export_and_import(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, 5)
    assert write_lines(ledger.entries(), tmp_path / "ledger.jsonl") == 5
    other = Ledger(tmp_path / "other.db")
    assert other.import_entries(read_lines(tmp_path / "ledger.jsonl")) == 5
    assert other.entries() == ledger.entries()
    assert other.import_entries(read_lines(tmp_path / "ledger.jsonl")) == 0
    ledger.append("verdict", {}, actor="ada")
    assert other.import_entries(ledger.entries()) == 1
    assert other.head() == ledger.head()
    assert ledger.import_entries(other.entries()[:3]) == 0


def test_import_refuses_what_is_not_its_own_continuation(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, 3)
    other = Ledger(tmp_path / "other.db")
    other.append("data-accepted", {}, actor="eve")
    with pytest.raises(IntegrityError, match="holds another record 1 than the one to import"):
        other.import_entries(ledger.entries())
    with pytest.raises(LedgerBroken, match="record 2"):
        Ledger(tmp_path / "third.db").import_entries([e for e in ledger.entries() if e.sequence != 2])
    assert other.head().sequence == 1
    assert Ledger(tmp_path / "third.db").entries() == []


def test_a_ledger_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no ledger at"):
        Ledger(tmp_path / "ledger.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_hold_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, and long enough to be looked at as one" * 20)
    for place, error, message in [
        (tmp_path / "file", IntegrityError, "not a database"),
        (tmp_path / "file" / "ledger.db", StorageError, "cannot be"),
        ("mysql://localhost/x", InputError, "SQLite or PostgreSQL, got 'mysql'"),
        ("ledger", InputError, "a file or a URL"),
        ("postgresql://ada:secret@127.0.0.1:9/x", StorageError, "does not answer"),
    ]:
        with pytest.raises(error, match=message) as refusal:
            Ledger(place, timeout=2)  # type: ignore[arg-type]
        assert "secret" not in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"short", b"not a database\n" * 1000, bytes(8192), None])
def test_a_file_that_is_no_database_or_is_cut_short_is_a_matter_of_integrity(tmp_path: Path, data: bytes | None) -> None:
    place = tmp_path / "ledger.db"
    fill(Ledger(place), 40)
    with sqlite3.connect(place) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    place.write_bytes(data if data is not None else place.read_bytes()[:6000])
    for create in (True, False):
        with pytest.raises(IntegrityError, match=r"is damaged, or is no ledger: .*; put back a copy of it") as refusal:
            Ledger(place, create=create).verify()
        assert "\n" not in str(refusal.value)


def test_a_table_of_other_columns_is_no_ledger(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("CREATE TABLE recompress_ledger (sequence INTEGER)")
    connection.close()
    with pytest.raises(IntegrityError, match="no such column"):
        Ledger(tmp_path / "ledger.db").entries()


def test_a_lock_that_is_no_database_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    (tmp_path / "ledger.db.lock").write_bytes(b"not a database\n" * 1000)
    with pytest.raises(IntegrityError, match=r"ledger\.db\.lock is damaged: .*delete it and go on"), ledger.lock():
        pass


def test_the_sqlite_file_keeps_its_promises_on_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_byte_changed_in_the_sqlite_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    fill(ledger, 12)
    before, head = ledger.entries(), ledger.head()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = (tmp_path / "ledger.db").read_bytes()
    refusals = 0
    for place in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        copy = tmp_path / "copy.db"
        for leftover in tmp_path.glob("copy.db*"):
            leftover.unlink()
        copy.write_bytes(changed)
        try:
            held = Ledger(copy, create=False)
            entries = held.entries()
            held.verify(head=head)
        except (StorageError, IntegrityError):
            refusals += 1
            continue
        assert entries == before
        verify(entries, head=head)
    assert refusals > 20
