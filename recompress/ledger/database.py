"""The two databases that may hold a ledger, and everything in which they differ.

SQLite: a file, in WAL mode, every commit forced to disk. PostgreSQL: a server, by URL. Both refuse UPDATE and DELETE by trigger, and both let go of a lock
when its holder dies: SQLite's is a transaction on a file of its own, PostgreSQL's an advisory lock that belongs to the connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, BigInteger, Column, Connection, Engine, Integer, MetaData, String, Table, Text, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.ledger.guards import TABLE, make_guards, missing_guards
from recompress.patience import Patience

APPEND_KEY = 0x7265636F6D707265
"""PostgreSQL's name of the lock under which records are appended."""
PROMOTE_KEY = APPEND_KEY + 1

metadata = MetaData()
ledger = Table(
    TABLE,
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("body_text", Text, nullable=False),
    Column("previous", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
)

DAMAGE = re.compile("is not a database|malformed|unsupported file format|Could not decode|no such column|column .* does not exist|invalid page")
"""How SQLite and PostgreSQL say that what they hold is not what was put there."""
AWAY = re.compile("connection failed|connection to server|connection timeout|failed to resolve|server closed the connection|terminating connection")
"""How psycopg says that there is nobody at a place."""
COMES_BACK = re.compile("starting up|shutting down|in recovery mode|not yet accepting connections|terminating connection|too many clients|connection slots")
"""How a PostgreSQL server says that it can be asked again soon. Whatever else it refuses with (a login, a database that is not there) it refuses for good."""
Answer = TypeVar("Answer")


class NoLedger(InputError):
    """There is none at this place. Whether one ought to be, the place cannot say."""


class LedgerAway(StorageError):
    """Its server does not answer, or went away in the middle: what was asked may be asked again."""


class Database:
    """Where a ledger lies. Connections are opened for one piece of work and closed after it, so that nothing is shared across a fork."""

    def __init__(self, where: Path | str, timeout: float) -> None:
        self.url = _url(where)
        self.name = self.url.render_as_string(hide_password=True)
        self.timeout = timeout
        self.patience = Patience()
        """How long a PostgreSQL server that is away is waited for, before anything was sent to it or where it was only asked."""
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        with speaking(self.name, timeout):
            self.engine = _engine(_readable(self.path) if self.path and _is_read_only(self.path) else self.url, timeout)
            self._lock_engine = _engine(self.url.set(database=f"{self.path}.lock"), timeout) if self.is_sqlite else self.engine

    def prepare(self, *, create: bool) -> None:
        """Make the table on first use, one process at a time. Raises ``NoLedger`` when there is none and ``create`` is false."""
        if self.path is not None and not self.path.exists():
            if not create:
                raise NoLedger(f"there is no ledger at {self.path}; the first run makes one")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"the ledger's folder {self.path.parent} cannot be made: {error.strerror}") from None
        with self.reading() as connection:
            there = self.engine.dialect.has_table(connection, ledger.name)
        if not self.is_sqlite:
            self._check_encoding(there)
        if there:
            return
        if not create:
            raise NoLedger(f"there is no ledger at {self.name}; the first run makes one")
        with self.promotion_lock(self.timeout):
            if self.is_sqlite:
                with self.reading() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            with self.writing() as connection:
                metadata.create_all(connection)
                make_guards(connection, is_sqlite=self.is_sqlite)

    def _check_encoding(self, there: bool) -> None:
        """Raises ``StorageError`` for a database that cannot hold every name and reason. One that was begun in an older encoding goes on, but for SQL_ASCII, which
        is none at all."""
        with self.reading() as connection:
            [encoding] = connection.exec_driver_sql("SHOW server_encoding").one()
        if encoding != "UTF8" and not (there and encoding != "SQL_ASCII"):
            raise StorageError(f"the database of the ledger {self.name} is {encoding}, a ledger needs UTF8: createdb -E UTF8 -T template0 …")

    def missing_guards(self) -> list[str]:
        """Names of the triggers that no longer guard the table as they did when it was made."""
        with self.reading() as connection:
            return missing_guards(connection, is_sqlite=self.is_sqlite)

    def guard(self) -> None:
        """Make the triggers anew."""
        with self.writing() as connection:
            make_guards(connection, is_sqlite=self.is_sqlite)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with speaking(self.name, self.timeout), self._connect(self.engine) as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def read(self, question: Callable[[Connection], Answer]) -> Answer:
        """The answer to a question that changes nothing, so that it is asked again where the server went away over it."""

        def ask() -> Answer:
            with self.reading() as connection:
                return question(connection)

        return self.patience.ask(f"the ledger {self.name}", ask, lambda error: isinstance(error, LedgerAway))

    def _connect(self, engine: Engine) -> Connection:
        return self.patience.ask(f"the ledger {self.name}", engine.connect, lambda error: isinstance(error, DBAPIError) and _is_away(error))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that nobody else appends beside."""
        with speaking(self.name, self.timeout), self._connect(self.engine) as connection:
            connection = connection.execution_options(begin="IMMEDIATE")
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{int(self.timeout * 1000)}ms"})
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": APPEND_KEY})
                yield connection

    @contextmanager
    def promotion_lock(self, timeout: float) -> Iterator[Connection]:
        """Hold the one lock under which aliases are moved, over any number of transactions."""
        file = f"{self.path}.lock" if self.is_sqlite else ""
        with speaking(self.name, timeout, "another promotion holds the ledger's lock", lock=file), self._connect(self._lock_engine) as connection:
            if self.is_sqlite:
                connection.connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
                connection = connection.execution_options(begin="IMMEDIATE")
                connection.begin()
            else:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql(f"SET lock_timeout = {int(timeout * 1000)}")
                # A holder whose machine is gone must not hold for hours.
                connection.exec_driver_sql("SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4")
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": PROMOTE_KEY})
            yield connection


@contextmanager
def speaking(name: str, timeout: float, busy: str = "another process is writing to the ledger", lock: str = "") -> Iterator[None]:
    """Say what a database's errors mean, in one line. Passwords never stand in it. ``lock`` is the file that holds the lock."""
    try:
        yield
    except DBAPIError as error:
        message = " ".join(str(error.orig).split())[:200]
        if "append-only" in message:
            raise IntegrityError(f"the ledger {name} is append-only; a change of a record was refused") from None
        if any(word in message for word in ("is locked", "lock timeout", "LockNotAvailable")):
            raise StorageError(f"{busy} ({name}) for longer than {timeout:g} s; wait for it to end, then run again") from None
        if DAMAGE.search(message) and lock:
            raise IntegrityError(f"{lock} is damaged: {message}; nothing but a lock is in it, so delete it and go on") from None
        if DAMAGE.search(message):
            raise IntegrityError(f"the ledger {name} is damaged, or is no ledger: {message}; put back a copy of it") from None
        kind = LedgerAway if _is_away(error) else StorageError
        raise kind(f"the ledger {name} does not answer: {message}; check that it is there, can be written and has space") from None
    except UnicodeEncodeError as error:
        raise StorageError(
            f"the ledger {name} cannot hold {error.object[error.start : error.end][:20]!r}: its database is {error.encoding}, not UTF8"
        ) from None
    except SQLAlchemyError as error:
        raise StorageError(f"the ledger {name} cannot be used: {' '.join(str(error).split())[:200]}") from None


def _is_away(error: DBAPIError) -> bool:
    """Whether a PostgreSQL server is not there, is not ready yet, or went away in the middle."""
    if error.connection_invalidated:
        return True
    message = str(error.orig)
    return bool(AWAY.search(message) and ("FATAL" not in message or COMES_BACK.search(message)))


def _url(where: Path | str) -> URL:
    if isinstance(where, Path):
        return URL.create("sqlite", database=str(where.resolve()))
    try:
        url = make_url(where)
    except ArgumentError:
        raise InputError("the ledger's place is a file or a URL, sqlite:///file or postgresql://user@host/database") from None
    if url.get_backend_name() == "sqlite" and url.database:
        return URL.create("sqlite", database=str(Path(url.database).resolve()))
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise InputError(f"a ledger lies in SQLite or PostgreSQL, got {url.get_backend_name()!r}")


def _is_read_only(path: Path) -> bool:
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _readable(path: Path) -> URL:
    """For those who may only read. SQLite keeps a log beside the file and wants to write there, unless it is told that nobody does: where there is no log, nobody
    has the file open, and all that was committed is in it."""
    log = path.with_name(f"{path.name}-wal")
    unlogged = not log.exists() or log.stat().st_size == 0
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if unlogged else {})
    return URL.create("sqlite", database=path.as_uri(), query=query)


def _engine(url: URL, timeout: float) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    arguments = {"timeout": timeout} if is_sqlite else {"connect_timeout": max(2, int(timeout)), "client_encoding": "utf8"}
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
    except (NoSuchModuleError, ModuleNotFoundError):
        raise StorageError("a ledger in PostgreSQL needs psycopg; pip install 'recompress[postgres]'") from None
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.isolation_level = None  # Python's driver must not open transactions of its own
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("begin")
    if mode:
        connection.exec_driver_sql(f"BEGIN {mode}")
