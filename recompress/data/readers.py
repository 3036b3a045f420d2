"""Read raw files as they come, and say where they are broken.

Four formats: CoNLL (``token TAG``, a blank line between sentences), TSV (a header, no quotes), JSON lines, and plain text with a sentence a line.

Rows may say which group they belong to (a document, an author): in a column of TSV or a key of JSON lines, or in CoNLL by a line before the first sentence of
each document that begins with a mark, like ``-DOCSTART- O``.

A strict read refuses the first broken line by file and line. A counting read goes on: it keeps what is whole, and what it had to leave out stands in
``Reading.problems``. A byte order mark and Windows line ends harm nobody; they are taken away and counted in both.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from recompress.errors import DataRefused

Format = Literal["conll", "tsv", "jsonl", "lines"]
ProblemKind = Literal["malformed_lines", "empty_words", "not_utf8", "byte_order_marks", "windows_line_ends"]
HARMLESS: tuple[ProblemKind, ...] = ("byte_order_marks", "windows_line_ends")
TAG = re.compile(r"O|[BI]-[^\s-]\S*")
WHOLE_SENTENCE = re.compile(rf"(?:[^ \t\n]+ (?:{TAG.pattern})(?:\n|\Z))+")


class Row(NamedTuple):
    """One raw example and the line (from 1) that it starts on. ``slice`` is empty where the format does not say."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    line: int
    slice: str = ""
    group: str = ""


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


def read_rows(path: Path, kind: Format, *, strict: bool = True, text: str = "text", label: str = "label", group: str | None = None) -> Reading:
    """Read one file. ``text``, ``label`` and, where rows have one, ``group`` name the columns of a TSV file and the keys of JSON lines; in CoNLL ``group`` is
    the mark that stands before each document, and groups are called by the line that it stands on.

    Raises ``DataRefused``: the file is missing, empty, without a whole row, or (when ``strict``) broken anywhere.
    """
    reading = Reading(path, strict)
    _READERS[kind](reading, _text(reading), text, label, group)
    if not reading.rows:
        raise DataRefused(f"{path} holds no examples; expected {_EXPECTED[kind]}")
    return reading


def _text(reading: Reading) -> str:
    """The file as text, lines ended by line feeds alone."""
    path = reading.path
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataRefused(f"{path} is missing") from None
    except OSError as error:
        raise DataRefused(f"{path} cannot be read: {error.strerror}") from None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        reading.report("byte_order_marks", 1, "a byte order mark stands at the beginning")
    if windows := data.count(b"\r\n"):
        reading.report("windows_line_ends", data[: data.index(b"\r\n")].count(b"\n") + 1, f"{windows} lines end as on Windows")
        data = data.replace(b"\r\n", b"\n")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(_decode(reading, number, line) for number, line in enumerate(data.split(b"\n"), 1))


def _decode(reading: Reading, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        reading.report("not_utf8", number, "the line is not UTF-8 text")
        return line.decode("utf-8", errors="replace")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines. Only a line feed ends one: U+0085 and U+2028 may stand inside a sentence."""
    return enumerate(text.split("\n"), 1)


def _read_marked(reading: Reading, text: str, _column: str, _key: str, mark: str | None) -> None:
    """A line that begins with ``mark`` begins a document, and is no word of it."""
    lines = text.split("\n")
    starts = [i + 1 for i, line in enumerate(lines) if mark and line.split(" ")[0] == mark]
    for start in starts:  # a blank line for each, so that rows know where they stand
        lines[start - 1] = ""
    text = "\n".join(lines)
    _read_conll(reading, text)
    for i, row in enumerate(reading.rows if starts else ()):
        place = bisect(starts, row.line)
        reading.rows[i] = row._replace(group=str(starts[place - 1]) if place else "0")


def _read_conll(reading: Reading, text: str) -> None:
    known: dict[str, str] = {}  # one object for each word and tag, however often it occurs
    line = 1
    for block in text.split("\n\n"):
        if WHOLE_SENTENCE.fullmatch(block):
            fields = [known.setdefault(field, field) for field in block.rstrip("\n").replace("\n", " ").split(" ")]
            reading.rows.append(Row(tuple(fields[::2]), tuple(fields[1::2]), line))
        else:
            _read_sentences(reading, block, line)
        line += block.count("\n") + 2


def _read_sentences(reading: Reading, block: str, first: int) -> None:
    """Line by line. A sentence with a malformed line is left out whole; a word that is not there (`` O``) is left out alone."""
    words: list[str] = []
    tags: list[str] = []
    start, broken = 0, False
    for number, line in (*enumerate(block.split("\n"), first), (0, "")):
        if not line.strip():
            if words and not broken:
                reading.rows.append(Row(tuple(words), tuple(tags), start))
            words, tags, start, broken = [], [], 0, False
            continue
        start = start or number
        word, space, tag = line.replace("\t", " ").rpartition(" ")
        if TAG.fullmatch(tag) and space and not word.strip():
            reading.report("empty_words", number, f"the word is empty, only its tag {tag!r} is there")
        elif TAG.fullmatch(tag) and word and " " not in word:
            words.append(word)
            tags.append(tag)
        else:
            reading.report("malformed_lines", number, f"expected 'token TAG' with a tag like O, B-PER or I-PER, got {_cut(line)}")
            broken = True


def _read_tsv(reading: Reading, content: str, text: str, label: str, group: str | None) -> None:
    """Quotes are characters like any other."""
    lines = _lines(content)
    _, first = next(lines)
    header = first.split("\t")
    for name in (text, label) if group is None else (text, label, group):
        if name not in header:
            raise DataRefused(f"expected a header with a column {name!r}, got {_cut(first)} ({reading.path}:1)")
    for number, line in lines:
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != len(header):
            reading.report("malformed_lines", number, f"expected {len(header)} columns, got {len(fields)}: {_cut(line)}")
            continue
        row = dict(zip(header, fields, strict=True))
        _add_text(reading, number, row[text], row[label], group="" if group is None else row[group])


def _read_jsonl(reading: Reading, content: str, text: str, label: str, group: str | None) -> None:
    for number, line in _lines(content):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            reading.report("malformed_lines", number, f"not JSON ({error}): {_cut(line)}")
            continue
        if not isinstance(row, dict) or not isinstance(row.get(text), str) or not isinstance(row.get(label), str):
            reading.report("malformed_lines", number, f"expected an object with the strings {text!r} and {label!r}, got {_cut(line)}")
            continue
        if group is not None and not isinstance(row.get(group), str):
            reading.report("malformed_lines", number, f"expected the string {group!r}, empty where the text belongs to nothing, got {_cut(line)}")
            continue
        _add_text(reading, number, row[text], row[label], "" if row.get("slice") is None else str(row["slice"]), "" if group is None else row[group])


def _read_lines(reading: Reading, content: str, *_: str | None) -> None:
    reading.rows.extend(Row((line,), (), number) for number, line in _lines(content) if line.strip())


def _add_text(reading: Reading, number: int, text: str, label: str, slice_: str = "", group: str = "") -> None:
    if not text.strip():
        reading.report("empty_words", number, f"the text is empty, only its label {label!r} is there")
    elif not label.strip():
        reading.report("malformed_lines", number, f"the label is empty: {_cut(text)}")
    else:
        reading.rows.append(Row((text,), (label,), number, slice_, group.strip()))


def _cut(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:59] + "…")


_READERS: dict[Format, Callable[[Reading, str, str, str, str | None], None]] = {
    "conll": _read_marked,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
    "lines": _read_lines,
}
_EXPECTED: dict[Format, str] = {
    "conll": "lines of 'token TAG' with a blank line after each sentence",
    "tsv": "a header and tab-separated lines",
    "jsonl": "a JSON object a line",
    "lines": "a sentence a line",
}
