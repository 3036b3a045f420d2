"""Read raw files as they come, and say where they are broken.

CoNLL, TSV, CSV, JSON, JSON lines, SQuAD's JSON, Parquet, datasets folders and plain text (``recompress.data.layout`` says what each is, and which dials it has).

Rows may say which group they belong to (a document, an author): in a column or key, or in CoNLL by a line before the first sentence of each document that begins
with a mark, like ``-DOCSTART- O``.

A strict read refuses the first broken line by file and line. A counting read goes on: it keeps what is whole, and what it had to leave out stands in
``Reading.problems``. A byte order mark and Windows line ends harm nobody; they are taken away and counted in both.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.data.excerpt import cut
from recompress.data.formats.conll_columns import read_columns
from recompress.data.formats.delimited import read_delimited
from recompress.data.formats.json_files import read_json, read_json_lines, read_squad
from recompress.data.formats.reading import HARMLESS, Problem, ProblemKind, Reading, Row, text_of
from recompress.data.formats.tables import read_table
from recompress.data.layout import Format, Layout
from recompress.errors import DataRefused

__all__ = ["HARMLESS", "Format", "Problem", "ProblemKind", "Reading", "Row", "read_file", "read_rows"]

TAG = re.compile(r"O|[BI]-[^\s-]\S*")
WHOLE_SENTENCE = re.compile(rf"(?:[^ \t\n]+ (?:{TAG.pattern})(?:\n|\Z))+")


def read_rows(path: Path, kind: Format, *, strict: bool = True, **dials: Any) -> Reading:
    """Read one file. ``dials`` are those of ``Layout``: ``text``, ``label`` and, where rows have one, ``group`` name columns or keys; in CoNLL ``group`` is the
    mark that stands before each document, and groups are called by the line that it stands on.

    Raises ``DataRefused``: the file is missing, empty, without a whole row, or (when ``strict``) broken anywhere.
    """
    usual = {"conll": "token-classification", "lines": "language-modelling", "squad": "question-answering"}.get(kind, "text-classification")
    return read_file(path, Layout.model_validate({"benchmark": usual, "format": kind, **dials}), strict=strict)


def read_file(path: Path, layout: Layout, *, strict: bool = True) -> Reading:
    """Read one file as ``layout`` says. Raises ``DataRefused`` as ``read_rows`` does."""
    reading = Reading(path, strict)
    if layout.format in ("parquet", "datasets"):
        read_table(reading, layout)
    else:
        _READERS[layout.format](reading, text_of(reading, layout.encoding), layout)
    if not reading.rows:
        if wrong := [problem for problem in reading.problems if problem.kind not in HARMLESS]:
            more = f", and so are {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            raise DataRefused(f"none of the rows can be read: {wrong[0]}{more}; correct the file, or the dials that say how it is read")
        chosen = (
            f"none of its {len(reading.problems):,} rows is one that where: chooses" if reading.count("not_chosen") else f"expected {_EXPECTED[layout.format]}"
        )
        raise DataRefused(f"{path} holds no examples; {chosen}")
    return reading


def _read_marked(reading: Reading, text: str, layout: Layout) -> None:
    """A line that begins with the mark that ``group`` names begins a document, and is no word of it."""
    lines = text.split("\n")
    starts = [i + 1 for i, line in enumerate(lines) if layout.group and line.replace("\t", " ").split(" ")[0] == layout.group]
    for start in starts:  # a blank line for each, so that rows know where they stand
        lines[start - 1] = ""
    text = "\n".join(lines)
    if layout.two_columns:
        _read_conll(reading, text)
    else:
        read_columns(reading, text, layout)
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
            reading.report("malformed_lines", number, f"expected 'token TAG' with a tag like O, B-PER or I-PER, got {cut(line)}")
            broken = True


def _read_lines(reading: Reading, content: str, _: Layout) -> None:
    """Only a line feed ends a line: U+0085 and U+2028 may stand inside a sentence."""
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            reading.add(Row((line,), (), number))


_READERS: dict[Format, Callable[[Reading, str, Layout], None]] = {
    "conll": _read_marked,
    "tsv": read_delimited,
    "quoted_tsv": read_delimited,
    "csv": read_delimited,
    "json": read_json,
    "jsonl": read_json_lines,
    "squad": read_squad,
    "lines": _read_lines,
}
_EXPECTED: dict[Format, str] = {
    "conll": "lines of 'token TAG' with a blank line after each sentence",
    "tsv": "a header and tab-separated lines",
    "quoted_tsv": "a header and tab-separated rows",
    "csv": "a header and rows",
    "json": "a list of objects",
    "jsonl": "a JSON object a line",
    "parquet": "rows",
    "datasets": "rows",
    "lines": "a sentence a line",
    "squad": "articles with paragraphs and questions about them",
}
