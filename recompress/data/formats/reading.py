"""What readers give: rows, and what is wrong where. And the first step of those that read text: bytes into characters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from recompress.data.characters import HALF
from recompress.data.excerpt import cut
from recompress.data.formats.encodings import looks_like, named_wide
from recompress.errors import DataRefused

ProblemKind = Literal["malformed_lines", "empty_words", "not_utf8", "byte_order_marks", "windows_line_ends", "not_chosen"]
LONGEST = 10_000_000
"""Characters of a row: of a book there are three million. What is longer is no text that anybody reads, but a file whose lines or quotes were lost."""
HARMLESS: tuple[ProblemKind, ...] = ("byte_order_marks", "windows_line_ends", "not_chosen")


class Row(NamedTuple):
    """One raw example and the line (from 1) that it starts on; in Parquet and Arrow the row (from 1). ``slice`` and ``split`` are empty where the row does
    not name them."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    line: int
    slice: str = ""
    group: str = ""
    split: str = ""


class Problem(NamedTuple):
    """One thing that is wrong, where, in words, and what happened to the row because of it."""

    kind: ProblemKind
    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} ({self.path}:{self.line})"


@dataclass
class Reading:
    """What came out of one file."""

    path: Path
    strict: bool
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def report(self, kind: ProblemKind, line: int, what: str) -> None:
        """Note a problem; a strict reading refuses it at once."""
        problem = Problem(kind, self.path, line, what)
        if self.strict and kind not in HARMLESS:
            raise DataRefused(str(problem))
        self.problems.append(problem)

    def count(self, kind: ProblemKind) -> int:
        return sum(problem.kind == kind for problem in self.problems)

    def add(self, row: Row) -> None:
        """Take a row, unless it is too long to be one, or half of a character stands in it, which no tokenizer takes and no file can hold."""
        if (size := sum(map(len, row.words))) > LONGEST:
            self.report("malformed_lines", row.line, f"the row is {size:,} characters long, at most {LONGEST:,} are taken; are line ends or quotes missing?")
            return
        for word in (*row.words, *row.labels, row.slice, row.group):
            if not word.isascii() and (half := HALF.search(word)):
                self.report("malformed_lines", row.line, f"half of a character (\\u{ord(half[0]):04x}) stands in {cut(word)}")
                return
        self.rows.append(row)


def bytes_of(path: Path) -> bytes:
    """Raises ``DataRefused`` for a file that is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataRefused(f"{path} is missing") from None
    except OSError as error:
        raise DataRefused(f"{path} cannot be read: {error.strerror}") from None


def text_of(reading: Reading, encoding: str = "utf-8") -> str:
    """The file as text, lines ended by line feeds alone. Raises ``DataRefused`` for a file that is not in ``encoding`` as a whole; single lines that are not
    UTF-8 are problems of theirs."""
    data = bytes_of(reading.path)
    if encoding != "utf-8":
        return _other_encoding(reading, data, encoding)
    if wide := named_wide(data):
        raise DataRefused(f"the file looks like {wide}, not UTF-8; say encoding: {wide}, or write it as UTF-8 ({reading.path}:1)")
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        reading.report("byte_order_marks", 1, "a byte order mark stands at the beginning")
    if windows := data.count(b"\r\n"):
        reading.report("windows_line_ends", data[: data.index(b"\r\n")].count(b"\n") + 1, f"{windows} lines end as on Windows")
        data = data.replace(b"\r\n", b"\n")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = looks_like(data, error.start)
        return "\n".join(_decode(reading, number, line, guess) for number, line in enumerate(data.split(b"\n"), 1))


def _other_encoding(reading: Reading, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data[:start].decode(encoding, errors="replace").count("\n") + 1
        raise DataRefused(f"the file is not {encoding} text: byte {start:,} means nothing in it ({reading.path}:{line})") from None
    if windows := text.count("\r\n"):
        reading.report("windows_line_ends", text[: text.index("\r\n")].count("\n") + 1, f"{windows} lines end as on Windows")
    return text.replace("\r\n", "\n")


def _decode(reading: Reading, number: int, line: bytes, guess: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        reading.report("not_utf8", number, f"the line is not UTF-8 text{guess}")
        return line.decode("utf-8", errors="replace")
