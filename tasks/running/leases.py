"""Who works on what in a project, across processes and machines: a lease in the ledger's database, kept by a thread for as long as the work lasts.

A holder that stops beating loses its lease after ``LEASE_S``. One whose process is known to be gone, because it ran on this machine, loses it at once.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from recompress.errors import StorageError
from recompress.integrity.digest import sha256_json
from recompress.ledger import Ledger
from recompress.ledger.leases import Lease
from tasks.ledger.access import actor

LEASE_S = 60.0
"""How long a holder on another machine that was killed, or a machine that is gone, keeps others waiting at most."""
BEAT_S = 15.0
LOOK_S = 0.5
"""How often whoever waits looks."""
Say = Callable[[str], None]


@dataclass
class Held:
    """A lease that this process holds. ``waited`` says whether somebody else held it first."""

    ledger: Ledger
    lease: Lease
    waited: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    def is_mine(self) -> bool:
        """Whether it is still held; asked of the database, and good for another ``LEASE_S``. Once lost it stays lost."""
        self._lost = self._lost or not self.ledger.leases.beat(self.lease, LEASE_S)
        return not self._lost

    def check(self) -> None:
        """Raises ``StorageError`` where the lease was lost while this process could not beat (a machine asleep, a database away)."""
        if self._lost:
            raise StorageError(
                f"the lease {self.lease.name!r} was lost to {self.ledger.leases.holder(self.lease.name) or 'nobody'}: this process stood still too long; run again"
            )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(StorageError):  # a database that is away may come back before the lease has run out
                if not self.is_mine():
                    return


@contextmanager
def leased(ledger: Ledger, name: str, say: Say, waiting_for: str = "") -> Iterator[Held]:
    """Hold the lease ``name`` for as long as the block lasts. While somebody else holds it, ``say`` is told once that ``waiting_for`` waits, and for whom."""
    lease, waited = None, False
    while (lease := take(ledger, name)) is None:
        who = ledger.leases.holder(name)
        if who is not None and not waited:
            say(f"{waiting_for or name} · waiting for {told(who)}, who is at it")
        waited = True
        time.sleep(LOOK_S)
    with held(ledger, lease, waited=waited) as mine:
        yield mine


def take(ledger: Ledger, name: str) -> Lease | None:
    """The lease, also where it has to be taken from a process of this machine that is gone; ``None`` while somebody else holds it."""
    lease = ledger.leases.take(name, me(), LEASE_S)
    if lease is None and (who := ledger.leases.holder(name)) is not None and is_gone(who):
        ledger.leases.take_away(name, who)
        return ledger.leases.take(name, me(), LEASE_S)
    return lease


@contextmanager
def held(ledger: Ledger, lease: Lease, *, waited: bool = False) -> Iterator[Held]:
    """Keep a lease that was taken, and give it back at the end."""
    mine = Held(ledger, lease, waited)
    beating = threading.Thread(target=mine._beat, daemon=True, name=f"lease {lease.name}"[:60])
    beating.start()
    try:
        yield mine
    finally:
        mine._ended.set()
        beating.join()
        with suppress(StorageError):  # where the database is away the lease runs out by itself
            ledger.leases.give_back(lease)


def me() -> str:
    """This process as a holder: who acts, and where, so that others on this machine can tell whether it is still there."""
    return f"{actor()[:100]} {socket.gethostname()[:60]}:{os.getpid()}/{_place()}"


def told(holder: str) -> str:
    """A holder, for a person."""
    who, _, where = holder.rpartition(" ")
    host, _, number = where.partition("/")[0].rpartition(":")
    return f"{who} (process {number} on {host})"


def is_gone(holder: str) -> bool:
    """Whether a holder is a process of this machine that is no more. Of other machines, and of other containers on this one, nobody here knows."""
    where, _, place = holder.rpartition("/")
    number = where.rpartition(":")[2]
    return place == _place() and number.isdigit() and not _lives(int(number))


def _lives(number: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _place() -> str:
    """The space in which the numbers of processes mean something: this host, since it was started, and this container of it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(), str(Path("/proc/self/ns/pid").readlink())]
    return sha256_json(parts)[:8]
