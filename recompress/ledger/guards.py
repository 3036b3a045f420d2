"""The triggers by which a database itself refuses to change, remove or insert a record; and whether they are still there, as they were made.

Whoever may write to the database may drop them. That breaks no chain, but it is what somebody does before records are changed, so it is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from recompress.ledger.entry import GENESIS

TABLE = "recompress_ledger"
_FOLLOWS = f"""SELECT coalesce(max(sequence), 0) + 1 FROM {TABLE}"""
_BEFORE = f"""coalesce((SELECT hash FROM {TABLE} ORDER BY sequence DESC LIMIT 1), '{GENESIS}')"""
_ABORT = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
# An INSERT OR REPLACE of SQLite deletes without asking a DELETE trigger, so inserts are checked too.
SQLITE = {
    "recompress_no_update": f"BEFORE UPDATE ON {TABLE} {_ABORT}",
    "recompress_no_delete": f"BEFORE DELETE ON {TABLE} {_ABORT}",
    "recompress_in_order": f"BEFORE INSERT ON {TABLE} WHEN NEW.sequence IS NOT ({_FOLLOWS}) OR NEW.previous IS NOT {_BEFORE} {_ABORT}",
}
_FUNCTION = f""" BEGIN
        IF TG_OP = 'INSERT' AND NEW.sequence = ({_FOLLOWS}) AND NEW.previous = {_BEFORE} THEN RETURN NEW; END IF;
        RAISE EXCEPTION 'the ledger is append-only'; END """
POSTGRES = {
    "recompress_rows": f"BEFORE INSERT OR UPDATE OR DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION recompress_append_only()",
    "recompress_all": f"BEFORE TRUNCATE ON {TABLE} FOR EACH STATEMENT EXECUTE FUNCTION recompress_append_only()",
}
_BITS = {"recompress_rows": 1 | 2 | 4 | 8 | 16, "recompress_all": 2 | 32}
"""PostgreSQL's ``tgtype``: for each row 1, before 2, insert 4, delete 8, update 16, truncate 32."""
_ENABLED = ("O", "A")
"""PostgreSQL's ``tgenabled`` of a trigger that an ordinary session cannot get around."""


def make_guards(connection: Connection, *, is_sqlite: bool) -> None:
    """Make them all, in place of what goes by their names."""
    if not is_sqlite:
        connection.exec_driver_sql(f"CREATE OR REPLACE FUNCTION recompress_append_only() RETURNS trigger LANGUAGE plpgsql AS $${_FUNCTION}$$")
    for name, body in (SQLITE if is_sqlite else POSTGRES).items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}" + ("" if is_sqlite else f" ON {TABLE}"))
        connection.exec_driver_sql(f"CREATE TRIGGER {name} {body}")


def missing_guards(connection: Connection, *, is_sqlite: bool) -> list[str]:
    """Names of the triggers that are gone, switched off, or not what they were made as."""
    return list(_missing_in_sqlite(connection) if is_sqlite else _missing_in_postgres(connection))


def _missing_in_sqlite(connection: Connection) -> Iterator[str]:
    rows = connection.exec_driver_sql(f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{TABLE}'")
    triggers = {str(name): _plain(str(sql)) for name, sql in rows}
    for name, body in SQLITE.items():
        if triggers.get(name) != _plain(f"CREATE TRIGGER {name} {body}"):
            yield name


def _missing_in_postgres(connection: Connection) -> Iterator[str]:
    rows = connection.exec_driver_sql(
        "SELECT t.tgname, t.tgtype, t.tgenabled, t.tgqual IS NULL, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        f"WHERE NOT t.tgisinternal AND t.tgrelid = '{TABLE}'::regclass"
    )
    triggers = {str(name): (kind, whole and _text(enabled) in _ENABLED, _plain(source)) for name, kind, enabled, whole, source in rows}
    for name, bits in _BITS.items():
        if triggers.get(name) != (bits, True, _plain(_FUNCTION)):
            yield name


def _text(value: str | bytes) -> str:
    """PostgreSQL's type ``"char"`` comes as bytes from some drivers."""
    return value.decode() if isinstance(value, bytes) else value


def _plain(sql: str) -> str:
    return " ".join(sql.split())
