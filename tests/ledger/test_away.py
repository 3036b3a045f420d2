"""A PostgreSQL server that goes away under a ledger: waited for where somebody has patience, named at once where nobody has, and no login is waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from recompress.errors import StorageError
from recompress.ledger import Ledger
from recompress.ledger.database import LedgerAway
from recompress.patience import Patience
from tests.ledger.stores import new_database


class Gate:
    """A way to a server that can be closed: a port that hands on what comes, or refuses and cuts what is open."""

    def __init__(self, port: int) -> None:
        self.to = port
        self._open: list[socket.socket] = []
        self._door: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._let_in, args=(self._door,), daemon=True).start()

    def close(self) -> None:
        assert self._door is not None
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _let_in(self, door: socket.socket) -> None:
        while True:
            try:
                one, _ = door.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self.to))
            self._open += [one, other]
            for source, sink in ((one, other), (other, one)):
                threading.Thread(target=_hand_on, args=(source, sink), daemon=True).start()


def _hand_on(source: socket.socket, sink: socket.socket) -> None:
    """Each of the two threads of a connection closes the side that it reads from."""
    with source, suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gate() -> Iterator[tuple[Gate, str]]:
    """A gate before a fresh database, and the ledger's URL through it."""
    url = new_database()
    head, _, tail = url.rpartition(":")
    port, _, name = tail.partition("/")
    made = Gate(int(port))
    yield made, f"{head}:{made.port}/{name}"
    made.close()


def test_who_has_patience_waits_for_a_server_and_loses_nothing(gate: tuple[Gate, str]) -> None:
    way, url = gate
    said: list[str] = []
    ledger = Ledger(url)
    ledger.patience = Patience(60, said.append)
    ledger.append("policy-recorded", {"recipe": "1", "policy_sha256": "0" * 64}, actor="ada")
    way.close()
    reopened = threading.Timer(1.5, way.open)
    reopened.start()
    ledger.append("policy-recorded", {"recipe": "2", "policy_sha256": "0" * 64}, actor="ada")
    assert [entry.body["recipe"] for entry in ledger.entries()] == ["1", "2"]
    assert (len(said), said[0].endswith("does not answer; it is waited for, 60 s at most"), said[1].endswith("answers again")) == (2, True, True)
    assert "***" in said[0], "no password is said"
    ledger.verify()


def test_who_has_none_is_told_at_once(gate: tuple[Gate, str]) -> None:
    way, url = gate
    ledger = Ledger(url)
    way.close()
    begun = time.monotonic()
    with pytest.raises(LedgerAway, match=r"the ledger postgresql.* does not answer: .*; check that it is there"):
        ledger.head()
    assert time.monotonic() - begun < 5
    way.open()


def test_a_question_is_asked_again_where_the_server_went_away_over_it_and_a_record_is_not(gate: tuple[Gate, str]) -> None:
    way, url = gate
    ledger = Ledger(url)
    ledger.patience = Patience(60)
    asked: list[int] = []

    def cut_once(connection: object) -> str:
        asked.append(1)
        if len(asked) == 1:
            way.close()
            way.open()
        connection.exec_driver_sql("SELECT 1")  # type: ignore[attr-defined]
        return "answered"

    assert ledger._database.read(cut_once) == "answered"
    assert len(asked) == 2

    def cut_off() -> None:
        with ledger.transaction() as writer:
            way.close()
            way.open()
            writer.append("policy-recorded", {"recipe": "1", "policy_sha256": "0" * 64}, actor="ada")

    with pytest.raises(LedgerAway):
        cut_off()
    assert ledger.entries() == []


def test_a_wrong_login_is_not_waited_for(gate: tuple[Gate, str]) -> None:
    _, url = gate
    user, _, rest = url.removeprefix("postgresql://").partition(":")
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        Ledger(f"postgresql://{user}:wrong@{rest.partition('@')[2]}")
    assert not isinstance(caught.value, LedgerAway)
