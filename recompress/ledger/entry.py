"""One record of the ledger, and the check of a whole chain of them.

    hash = sha256(canonical JSON of {actor, body, kind, previous, sequence, time})        previous = hash of the record before, 64 zeros for the first

Canonical JSON is RFC 8785. The body is kept as its canonical text, so that it is hashed as it stands; what it must say is in ``body``.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Iterable
from typing import Any, NamedTuple

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import canonical_json, sha256_bytes
from recompress.ledger.body import check_body, read_body, read_time

GENESIS = "0" * 64
MAX_BODY_BYTES = 1 << 18
MAX_ACTOR = 200

KINDS = {
    "data-accepted": "prepared data passed its checks; waivers stand in the body",
    "data-refused": "prepared data did not pass its checks",
    "policy-recorded": "the policy that will judge, before anything is measured",
    "step-kept": "a step was finished; the digest of its result, before MLflow is told of it",
    "policy-pinned": "what every promotion of a model needs at least; the body holds the whole policy",
    "policy-unpinned": "a pin was lifted; the body says why",
    "baseline-accepted": "a person let a baseline count that is worse than the last accepted one",
    "baseline-trained": "the uncompressed model exists",
    "variant-measured": "one model was measured on the test split",
    "finalists-named": "who is judged on the test split, in which order; written before it is looked at",
    "test-look": "one look at a test split, with its level; written before its verdict is reached",
    "test-look-result": "what came out of a look; a look without one counts as refused",
    "verdict": "the gate compared a candidate with the baseline and the champion",
    "promotion-proposed": "a candidate wants to be champion; the body holds the whole plan",
    "rollback": "an earlier version shall be champion again; the body holds the whole plan and the reason",
    "promotion-judged": "the plan's verdict lets it go on",
    "approval": "a person let the plan go on",
    "rejection": "a person stopped the plan",
    "promotion-approved": "the plan's rule asks for no person",
    "version-uploading": "about to upload a version; the digest of its manifest, before the first of its files",
    "key-used": "a key signs here from now on; its public half",
    "promotion-intent": "about to move the alias; written before the effect",
    "promotion-alias-moved": "the alias was moved",
    "promotion-verified": "the files behind the alias were hashed again",
    "promotion-committed": "the promotion is over and holds",
    "promotion-refused": "the plan ended; the body names why",
    "promotion-expired": "the approval ran out before it was used",
    "promotion-withdrawn": "an intent was given up before anything was moved",
    "promotion-undo": "about to move the alias back; written before the effect",
    "promotion-rolled-back": "the alias is back where it was",
    "alias-moved-outside": "the registry's champion is not the one that the ledger knows",
    "recovery": "a promotion that was cut off was found and taken up",
    "source-seen": "a look saw a source otherwise than the look before: its digest, or a commit that changes nothing that is read",
    "source-not-visible": "a source could not be seen; nothing follows from that but that people are told",
    "source-waits": "a source changed in a way that a person has to look at first",
    "watch-looked": "a look was made and saw nothing new; written once a day, so that silence shows",
    "watch-run": "a watch claims a run; its key is the digest of recipe and sources, and there is one for each key",
    "watch-run-ended": "how that run ended, or failed and will be tried again",
    "people-told": "a message about a record went out; the body names the record and the event",
    "model-exported": "a promoted version was written for another runtime; the digest of the exported folder's list",
}
"""Every kind of record that may be written, and what it says. Kinds that a later version adds verify here too."""


class LedgerBroken(IntegrityError):
    """The chain does not hold. ``sequence`` is the number of the first bad record."""

    def __init__(self, sequence: int, message: str) -> None:
        super().__init__(f"ledger record {sequence}: {message}")
        self.sequence = sequence


class Head(NamedTuple):
    """The end of a chain: how many records there are, and the hash of the last. Kept elsewhere, it is an anchor."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """``12:9f…`` back to a head. Raises ``IntegrityError``."""
        sequence, _, digest = text.partition(":")
        if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 16 and is_hash(digest)):
            raise IntegrityError(f"a ledger head is number:sha256, got {text[:80]!r}")
        return cls(int(sequence), digest)


class Entry(NamedTuple):
    """One record. ``body_text`` is canonical JSON; ``time`` is RFC 3339 in UTC, by the clock of the machine that wrote it."""

    sequence: int
    time: str
    actor: str
    kind: str
    body_text: str
    previous: str
    hash: str

    @property
    def body(self) -> dict[str, Any]:
        """What the record says. Raises ``LedgerBroken`` when it says what no record of its kind can say."""
        try:
            return read_body(self.kind, self.body_text)
        except ValueError as error:
            raise LedgerBroken(self.sequence, f"its body {error}") from None

    @property
    def head(self) -> Head:
        return Head(self.sequence, self.hash)

    def as_json(self) -> dict[str, Any]:
        fields = self._asdict()
        del fields["body_text"]
        return fields | {"body": self.body}

    def line(self) -> str:
        """The record as one line of canonical JSON, without the line's end."""
        return self._line(f'"hash":{quote(self.hash)},')

    def compute_hash(self) -> str:
        return sha256_bytes(self._line("").encode("utf-8", "surrogatepass"))

    def _line(self, own_hash: str) -> str:
        """Canonical JSON by hand: the keys stand in order, and the body is canonical already."""
        return (
            f'{{"actor":{quote(self.actor)},"body":{self.body_text},{own_hash}"kind":{quote(self.kind)},'
            f'"previous":{quote(self.previous)},"sequence":{self.sequence},"time":{quote(self.time)}}}'
        )


quote = json.encoder.encode_basestring
"""A string as RFC 8785 writes it: Python's escapes are the same."""


def make_entry(before: Head, *, time: str, actor: str, kind: str, body: dict[str, Any]) -> Entry:
    """The record that follows ``before``.

    Raises ``InputError`` for a kind that is not known, an actor without a name, or a body that JSON cannot say or that lacks what its kind must say.
    """
    if kind not in KINDS:
        from recompress.settings.file import unknown

        raise InputError(unknown("kind of ledger record", kind, KINDS, "ledger"))
    if not actor.strip() or len(actor) > MAX_ACTOR or not actor.isprintable():
        raise InputError(f"an actor is a printable name of 1 to {MAX_ACTOR} characters, got {actor[:MAX_ACTOR]!r}")
    try:
        text = canonical_json(body).decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the body of a {kind} record cannot be said in JSON: {error}") from None
    try:
        check_body(kind, body)
    except ValueError as error:
        raise InputError(f"the body of a {kind} record {error}") from None
    if len(text) > MAX_BODY_BYTES:
        raise InputError(f"the body of a {kind} record has {len(text):,} characters, the limit is {MAX_BODY_BYTES:,}; record the digest of what is large")
    unhashed = Entry(before.sequence + 1, time, actor, kind, text, before.hash, "")
    return unhashed._replace(hash=unhashed.compute_hash())


def verify(entries: Iterable[Entry], *, head: Head | None = None, anchors: Iterable[Head] = ()) -> Head:
    """Check a whole chain from its first record, and that every record says what its kind must say; give its head.

    The *stored* previous hash is compared with the one recomputed from the record before. ``anchors`` are heads that must lie on the chain; ``head`` is the one
    that it must end with. Raises ``LedgerBroken`` that names the first bad record.
    """
    wanted = dict[int, set[str]]()
    for anchor in (*anchors, *([head] if head else [])):
        wanted.setdefault(anchor.sequence, set()).add(anchor.hash)
    tip = Head(0, GENESIS)
    _check_anchor(wanted, tip)
    for entry in entries:
        number = tip.sequence + 1
        if entry.sequence != number:
            raise LedgerBroken(number, f"it is missing or out of place; number {entry.sequence} stands where it should be")
        try:
            digest = entry.compute_hash()
        except TypeError:  # SQLite keeps bytes in a column of text, if somebody writes them
            raise LedgerBroken(number, "it was changed; it holds something other than text") from None
        if entry.hash != digest:
            raise LedgerBroken(number, f"it was changed; its content hashes to {digest[:12]}…, it says {str(entry.hash)[:12]!r}…")
        if entry.previous != tip.hash:
            raise LedgerBroken(number, f"it does not follow record {tip.sequence}; that hashes to {tip.hash[:12]}…, it says {entry.previous[:12]!r}…")
        try:
            read_time(entry.time)
        except ValueError as error:
            raise LedgerBroken(number, f"its time {error}") from None
        _ = entry.body  # raises for what no record of its kind can say
        tip = Head(number, digest)
        _check_anchor(wanted, tip)
    if wanted:
        raise LedgerBroken(tip.sequence + 1, f"it is missing; the ledger ends at {tip.sequence}, and record {max(wanted)} is anchored elsewhere")
    if head is not None and tip != head:
        raise LedgerBroken(head.sequence + 1, f"it should not be there; the ledger ends at record {head.sequence} by its head")
    return tip


def _check_anchor(wanted: dict[int, set[str]], tip: Head) -> None:
    hashes = wanted.pop(tip.sequence, None)
    if hashes is not None and hashes != {tip.hash}:
        raise LedgerBroken(tip.sequence, f"it is not the record that was anchored elsewhere; {', '.join(sorted(hashes - {tip.hash}))[:12]}… was")


def is_hash(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
