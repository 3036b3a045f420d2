"""Chains for tests: short, varied, and made without a database."""

from __future__ import annotations

from recompress.ledger import GENESIS, KINDS, Entry, Head
from recompress.ledger.entry import make_entry

BODIES = (
    {"model": "ner", "data": "d" * 64},
    {"passed": True, "loss": 0.0125, "small": 1e-7, "whole": 3.0},
    {"reason": 'größer als "1"\n\\', "list": [1, None, []]},
    {},
)


def chain(length: int, *, actor: str = "ada") -> list[Entry]:
    entries: list[Entry] = []
    head = Head(0, GENESIS)
    for i in range(length):
        kind = list(KINDS)[i % len(KINDS)]
        entries.append(make_entry(head, time=f"2026-11-20T12:00:{i % 60:02d}.000000Z", actor=actor, kind=kind, body=BODIES[i % len(BODIES)]))
        head = entries[-1].head
    return entries
