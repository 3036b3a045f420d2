"""Telling people, by Apprise: mail, chat, webhooks. ``RECOMPRESS_TELL`` holds the addresses, with spaces between them; they may hold passwords, and are never shown.

What is to be told stands in the ledger, and so does what was told, so that a message that did not go out goes out later, and none twice. A message that fails is
left alone for a while, longer each time; it fails nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from recompress.errors import RecompressError
from recompress.integrity.digest import sha256_bytes
from recompress.ledger import Ledger
from recompress.watch.history import TOLD
from recompress.watch.messages import Message, messages
from recompress.watch.settings import read_watch_settings
from tasks.ledger.access import actor, ledger_if_any

ADDRESSES = "RECOMPRESS_TELL"
BEGINS = "telling begins"
LEASE_S, PAUSE_S, LONGEST_PAUSE_S = 120.0, 60.0, 6 * 3600.0
Say = Callable[[str], None]


def begin_telling(root: Path) -> None:
    """From here on whoever stands in ``RECOMPRESS_TELL`` is told; what happened before an address stood there is not. Call it before the work begins."""
    addresses, ledger = _addresses(), ledger_if_any(root)
    for name in addresses if ledger is not None else ():
        with ledger.transaction() as writer:  # type: ignore[union-attr]
            if writer.last(TOLD, event=BEGINS, to=name) is None:
                writer.append(TOLD, {"about": writer.head().hash, "event": BEGINS, "to": name}, actor=actor())


def tell_people(root: Path, say: Say, budget: float | None = None) -> int:
    """Send what is owed, and give the number of messages that went out. Raises nothing: whoever cannot be told is told later. ``budget`` is what ``watch.yaml`` says,
    which is read where it is left out."""
    addresses = _addresses()
    if not addresses:
        return 0
    try:
        ledger = ledger_if_any(root)
        if ledger is None or (lease := ledger.leases.take("tell people", actor(), LEASE_S)) is None:
            return 0
        try:
            share = read_watch_settings(root).budget if budget is None else budget
            return sum(_send_owed(ledger, name, address, share, say) for name, address in addresses.items())
        finally:
            ledger.leases.give_back(lease)
    except RecompressError as error:
        say(f"people could not be told: {error}")
        return 0


def owed(ledger: Ledger, name: str, budget: float) -> list[Message]:
    """The messages that an address has not been sent yet."""
    entries = ledger.entries()
    told = [entry for entry in entries if entry.kind == TOLD and entry.body.get("to") == name]
    after = next((entry.sequence for entry in told if entry.body["event"] == BEGINS), 0)
    known = {(entry.body["about"], entry.body["event"]) for entry in told}
    return [message for message in messages(entries, after, ledger.clock(), budget) if (message.about, message.event) not in known]


def _send_owed(ledger: Ledger, name: str, address: str, budget: float, say: Say) -> int:
    place = f"tell {name}"
    if ledger.leases.paused(place) > 0:
        return 0
    sent = 0
    for message in owed(ledger, name, budget):
        reason = _send(address, message)
        if reason:
            pause = ledger.leases.pause(place, PAUSE_S, LONGEST_PAUSE_S)
            say(f"the message {message.title!r} did not go out ({_kind(address)}: {reason}); it is tried again in {pause:.0f} s")
            return sent
        ledger.append(TOLD, {"about": message.about, "event": message.event, "to": name}, actor=actor())
        sent += 1
    if sent:
        ledger.leases.resume(place)
    return sent


def _send(address: str, message: Message) -> str:
    """Why a message did not go out; empty where it did."""
    from apprise import Apprise, NotifyFormat

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would show addresses
    way = Apprise()
    try:
        if not way.add(address):
            return f"{ADDRESSES} holds an address that Apprise does not know; a space in one is written %20"
        return "" if way.notify(title=message.title, body=message.body, body_format=NotifyFormat.TEXT) else "the other side did not take it"
    except Exception as error:  # whatever a hundred services raise, nobody's run ends of it
        return type(error).__name__


def _addresses() -> dict[str, str]:
    """The addresses, by names that do not show them."""
    return {sha256_bytes(address.encode())[:16]: address for address in os.environ.get(ADDRESSES, "").split()}


def _kind(address: str) -> str:
    """What an address begins with, where that is a kind that Apprise knows: anything else may be a piece of a password."""
    from apprise.plugins import N_MGR

    kind, mark, _ = address.partition("://")
    known = N_MGR.schemas()  # type: ignore[no-untyped-call]
    return kind if mark and kind.lower() in known else "an address of no kind that Apprise knows"
