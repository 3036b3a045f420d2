"""Leases in the ledger's database: who works on what, for how long at most, and whether that is still so.

A lease ends by itself when its holder does not beat any more, so that a process that was killed holds nothing for ever. Each time that a lease is taken it gets a
higher number; who holds an older one holds nothing (fencing). Time is the database's own, so that clocks of machines may differ. Leases are no records: they may
be deleted at any time, and nothing that was decided is lost with them.

Pauses lie beside them: until when something that failed is left alone, and how often it has failed in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, delete, insert, select, text, update

from recompress.ledger.database import Database

metadata = MetaData()
leases = Table(
    "recompress_leases",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("number", Integer, nullable=False),
    Column("until", Float, nullable=False),
)
pauses = Table(
    "recompress_pauses",
    metadata,
    Column("name", String(300), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("until", Float, nullable=False),
)


class Lease(NamedTuple):
    """A lease that was taken, by its number."""

    name: str
    holder: str
    number: int


class Leases:
    """The leases of one ledger's database. Every method raises ``StorageError`` when that is held, full or away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Take a lease for so many seconds; ``None`` while somebody else holds it."""
        with self._writing() as connection:
            now = self._now(connection)
            row = connection.execute(select(leases.c.number, leases.c.until).where(leases.c.name == name)).first()
            if row is not None and row.until > now:
                return None
            number = 1 if row is None else row.number + 1
            if row is None:
                connection.execute(insert(leases).values(name=name, holder=holder, number=number, until=now + seconds))
            else:
                connection.execute(update(leases).where(leases.c.name == name).values(holder=holder, number=number, until=now + seconds))
            return Lease(name, holder, number)

    def beat(self, lease: Lease, seconds: float) -> bool:
        """Hold it for so many seconds from now on. False when it ran out and somebody else has taken it since: whoever held it must stop."""
        with self._writing() as connection:
            mine = (leases.c.name == lease.name) & (leases.c.number == lease.number)
            until = self._now(connection) + seconds
            return bool(connection.execute(update(leases).where(mine).values(until=until)).rowcount)

    def give_back(self, lease: Lease) -> None:
        """Let it go, if it is still the same. Its number stays, so that the next one is higher."""
        with self._writing() as connection:
            mine = (leases.c.name == lease.name) & (leases.c.number == lease.number)
            connection.execute(update(leases).where(mine).values(until=0.0))

    def take_away(self, name: str, holder: str) -> None:
        """End the lease of a holder that is known to be gone, before it runs out. Nothing happens where somebody else holds it by now."""
        with self._writing() as connection:
            theirs = (leases.c.name == name) & (leases.c.holder == holder)
            connection.execute(update(leases).where(theirs).values(until=0.0))

    def holder(self, name: str) -> str | None:
        """Who holds a lease now."""
        with self._writing() as connection:
            row = connection.execute(select(leases.c.holder, leases.c.until).where(leases.c.name == name)).first()
            return None if row is None or row.until <= self._now(connection) else str(row.holder)

    def pause(self, name: str, seconds: float, longest: float, at_least: float = 0.0) -> float:
        """Leave something alone: ``seconds`` the first time, twice as long each time after it, at most ``longest``, and never less than it asked for. Gives the pause."""
        with self._writing() as connection:
            row = connection.execute(select(pauses.c.failures).where(pauses.c.name == name)).first()
            failures = 0 if row is None else row.failures
            pause = max(at_least, min(longest, seconds * 2.0 ** min(failures, 30)))
            connection.execute(delete(pauses).where(pauses.c.name == name))
            connection.execute(insert(pauses).values(name=name, failures=failures + 1, until=self._now(connection) + pause))
            return pause

    def paused(self, name: str) -> float:
        """For how many seconds it is to be left alone still; 0 when it is not."""
        with self._writing() as connection:
            row = connection.execute(select(pauses.c.until).where(pauses.c.name == name)).first()
            return 0.0 if row is None else max(0.0, float(row.until) - self._now(connection))

    def resume(self, name: str) -> None:
        """It worked: the next failure is the first again."""
        with self._writing() as connection:
            connection.execute(delete(pauses).where(pauses.c.name == name))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._database.writing() as connection:
            metadata.create_all(connection)
            yield connection

    def _now(self, connection: Connection) -> float:
        seconds = "(julianday('now') - 2440587.5) * 86400.0" if self._database.is_sqlite else "extract(epoch from clock_timestamp())"
        return float(connection.execute(text(f"SELECT {seconds}")).scalar_one())
