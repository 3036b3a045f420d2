"""The ledger in its database: append, read, verify, import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, insert, select, text

from recompress.errors import IntegrityError
from recompress.integrity.digest import canonical_json
from recompress.ledger.database import Database, ledger
from recompress.ledger.entry import GENESIS, Entry, Head, make_entry, verify
from recompress.ledger.leases import Leases
from recompress.patience import Patience

Clock = Callable[[], datetime]
BATCH = 1000


def utc_now() -> datetime:
    return datetime.now(UTC)


def rfc3339(time: datetime) -> str:
    """``2026-11-20T12:00:00.000000Z``."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Lock:
    """The one lock under which aliases are moved, while it is held."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def check(self) -> None:
        """Raises ``StorageError`` when the connection that holds the lock is gone, and the lock with it."""
        self._connection.execute(text("SELECT 1"))


class Reader:
    """Queries that a ledger and an open transaction of it both answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self) -> Head:
        row = self._connection.execute(select(ledger.c.sequence, ledger.c.hash).order_by(ledger.c.sequence.desc()).limit(1)).first()
        return Head(*row) if row else Head(0, GENESIS)

    def entries(self, *kinds: str, **about: str) -> list[Entry]:
        """Records in order: of these kinds (all when none is named) whose body says ``about``, e.g. ``model="ner"``."""
        return list(_matching(self._connection.execute(_query(kinds, about).order_by(ledger.c.sequence)), about))

    def last(self, *kinds: str, **about: str) -> Entry | None:
        """The latest such record."""
        rows = self._connection.execute(_query(kinds, about).order_by(ledger.c.sequence.desc()))
        return next(_matching(rows, about), None)


class Writer(Reader):
    """An open transaction: what it reads cannot change before what it appends is there."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        super().__init__(connection)
        self._clock = clock

    def append(self, kind: str, body: dict[str, Any], *, actor: str) -> Entry:
        """Add one record. Raises ``InputError`` for a kind, a body or an actor that cannot be recorded."""
        entry = make_entry(self.head(), time=rfc3339(self._clock()), actor=actor, kind=kind, body=body)
        self._connection.execute(insert(ledger).values(**entry._asdict()))
        return entry


class Ledger:
    """A ledger in a SQLite file (give its path) or in PostgreSQL (give its URL). Any number of processes may use it at once.

    ``timeout`` is how long, in seconds, an append waits for another one. Every method raises ``StorageError`` when the database is held, full or away.
    """

    def __init__(self, where: Path | str, *, timeout: float = 10.0, create: bool = True, clock: Clock = utc_now) -> None:
        self._database = Database(where, timeout)
        self._database.prepare(create=create)
        self.name = self._database.name
        self.clock = clock

    def append(self, kind: str, body: dict[str, Any], *, actor: str) -> Entry:
        """Add one record; it is on disk when this returns."""
        with self.transaction() as writer:
            return writer.append(kind, body, actor=actor)

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """Read and append as one step. Keep it short: everybody else waits. Nothing is written when the block raises."""
        with self._database.writing() as connection:
            yield Writer(connection, self.clock)

    @contextmanager
    def lock(self, timeout: float = 120.0) -> Iterator[Lock]:
        """Hold the lock of promotions. It is let go when the block ends or the process dies. Raises ``StorageError`` after ``timeout`` seconds."""
        with self._database.promotion_lock(timeout) as connection:
            yield Lock(connection)

    @property
    def patience(self) -> Patience:
        """How long a PostgreSQL server that is away is waited for; not at all unless somebody says otherwise."""
        return self._database.patience

    @patience.setter
    def patience(self, patience: Patience) -> None:
        self._database.patience = patience

    @property
    def leases(self) -> Leases:
        """Who works on what: kept beside the records, and no part of them."""
        return Leases(self._database)

    def head(self) -> Head:
        return self._database.read(lambda connection: Reader(connection).head())

    def entries(self, *kinds: str, **about: str) -> list[Entry]:
        return self._database.read(lambda connection: Reader(connection).entries(*kinds, **about))

    def last(self, *kinds: str, **about: str) -> Entry | None:
        return self._database.read(lambda connection: Reader(connection).last(*kinds, **about))

    def verify(self, *, head: Head | None = None, anchors: Iterable[Head] = ()) -> Head:
        """Check the whole chain, and that every anchor lies on it. Raises ``LedgerBroken`` that names the first bad record."""
        with self._database.reading() as connection:
            rows = connection.execute(select(ledger).order_by(ledger.c.sequence))
            return verify(map(Entry._make, rows), head=head, anchors=anchors)

    def missing_guards(self) -> list[str]:
        """Names of the triggers by which the database refuses changes, and which are gone or altered. Empty when all is as it was made."""
        return self._database.missing_guards()

    def guard(self) -> Head:
        """Make those triggers anew, once the chain holds, and give its head. Raises ``LedgerBroken``: what was changed is not to be guarded."""
        head = self.verify()
        self._database.guard()
        return head

    def import_entries(self, entries: Iterable[Entry]) -> int:
        """Take over a ledger that was exported, and give the number of records added.

        Either all of it is added or nothing. Raises ``LedgerBroken`` when it does not verify, and ``IntegrityError`` when this ledger already holds other records.
        """
        given = list(entries)
        verify(given)
        with self.transaction() as writer:
            known = writer.entries()
            for ours, theirs in zip(known, given, strict=False):
                if ours != theirs:
                    raise IntegrityError(f"{self.name} holds another record {ours.sequence} than the one to import; import into an empty ledger")
            fresh = iter(given[len(known) :])
            while batch := list(islice(fresh, BATCH)):
                writer._connection.execute(insert(ledger), [entry._asdict() for entry in batch])
        return max(0, len(given) - len(known))


def _query(kinds: tuple[str, ...], about: dict[str, str]) -> Select[Any]:
    query = select(ledger)
    if kinds:
        query = query.where(ledger.c.kind.in_(kinds))
    for name, value in about.items():
        query = query.where(ledger.c.body_text.contains(canonical_json({name: value})[1:-1].decode(), autoescape=True))
    return query


def _matching(rows: Iterable[Any], about: dict[str, str]) -> Iterator[Entry]:
    """The database looks for text; whether the body really says it, at its top, is decided here."""
    for row in rows:
        entry = Entry._make(row)
        if not about or about.items() <= {key: value for key, value in entry.body.items() if isinstance(value, str)}.items():
            yield entry
