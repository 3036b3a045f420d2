"""The ledger as JSON lines: one record a line, in canonical JSON, so that every single byte counts.

A line that is not exactly the canonical form of what it says (a space, another order of keys, a key twice, ``1.0`` for ``1``) is refused: two readers must
never read two things from the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from recompress.errors import StorageError
from recompress.integrity.digest import canonical_json
from recompress.ledger.entry import MAX_BODY_BYTES, Entry, LedgerBroken

MAX_LINE_BYTES = 4 * MAX_BODY_BYTES
FIELDS = {"actor": str, "body": dict, "hash": str, "kind": str, "previous": str, "sequence": int, "time": str}
_plain = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def write_lines(entries: Iterable[Entry], path: Path) -> int:
    """Write records to a file, whole or not at all, and give their number. Raises ``StorageError``."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with beside.open("wb") as file:
            for count, entry in enumerate(entries, 1):  # noqa: B007
                file.write(entry.line().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StorageError(f"the ledger cannot be written to {path}: {error.strerror}; choose a place that can be written and has space") from None
    finally:
        with suppress(OSError):
            beside.unlink()
    return count


def read_lines(path: Path) -> Iterator[Entry]:
    """The records of a file, one by one, unverified but each in its one canonical form. Raises ``LedgerBroken`` for a line that is not, and ``StorageError``."""
    reader = _Reader()
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield reader.entry(number, line)
    except OSError as error:
        raise StorageError(f"the ledger file {path} cannot be read: {error.strerror}") from None


class _Reader:
    """Lines to records. The fast encoder agrees with RFC 8785 on everything but numbers with an exponent, huge integers, and the order of keys beyond ASCII;
    a line with any of these goes the slow way."""

    def __init__(self) -> None:
        self.unusual = False
        self.decode = json.JSONDecoder(parse_float=self._float, parse_int=self._int, parse_constant=_no_constant).decode

    def entry(self, number: int, line: bytes) -> Entry:
        if len(line) > MAX_LINE_BYTES:
            raise LedgerBroken(number, f"its line is longer than {MAX_LINE_BYTES:,} bytes")
        if not line.endswith(b"\n"):
            raise LedgerBroken(number, "its line has no end; the file was cut off or changed")
        try:
            text = line[:-1].decode("utf-8")
            entry = self._parse(text)
            if entry.line() == text:
                return entry
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise LedgerBroken(number, "its line is not a record in canonical JSON")

    def _parse(self, text: str) -> Entry:
        self.unusual = not text.isascii()
        record = self.decode(text)
        if type(record) is not dict or record.keys() != FIELDS.keys() or [type(record[name]) for name in FIELDS] != list(FIELDS.values()):
            raise ValueError("fields")
        body = record.pop("body")
        return Entry(body_text=canonical_json(body).decode() if self.unusual else _plain(body), **record)

    def _float(self, text: str) -> float:
        value = float(text)
        if "e" in text or text.endswith(".0") or repr(value) != text:
            self.unusual = True
        return value

    def _int(self, text: str) -> float:
        if len(text) <= 15:
            return int(text)
        self.unusual = True
        return float(text)  # JSON knows no integers beyond 2**53: what is written so was a float


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
