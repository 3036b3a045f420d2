"""JSON lines, and JSON documents: a list of objects, alone or under one key, the columns or rows that pandas writes, or the articles of SQuAD.

Numbers stay as they are written, NaN and Infinity are missing values. A key that stands twice in an object is refused, because nobody knows which was meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from recompress.data.excerpt import cut
from recompress.data.formats.reading import Reading
from recompress.data.formats.records import Written, add_record
from recompress.data.layout import Layout
from recompress.data.questions import ANSWERS, CONTEXT, QUESTION, flattened, is_squad
from recompress.errors import DataRefused

_SPACE = re.compile(r"[ \t\n\r]*")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError(f"the key {next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))!r} stands twice")
    return record


_DECODER = json.JSONDecoder(parse_float=Written, parse_int=Written, parse_constant=lambda _: None, object_pairs_hook=_object)


def read_json_lines(reading: Reading, content: str, layout: Layout) -> None:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            reading.report("malformed_lines", number, f"not JSON ({error}): {cut(line)}")
            continue
        if isinstance(record, dict):
            add_record(reading, layout, number, record)
        else:
            reading.report("malformed_lines", number, f"expected an object with the strings {layout.text!r} and {layout.label!r}, got {cut(line)}")


def line_records(content: str) -> Iterator[tuple[int, Any]]:
    """The lines of a file that are JSON, with their numbers."""
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            with suppress(ValueError, RecursionError):
                yield number, _DECODER.decode(line)


def read_json(reading: Reading, content: str, layout: Layout) -> None:
    """Raises ``DataRefused`` for a document that is no JSON, because what stands behind the mistake is lost, or that holds no list of objects."""
    for number, record in records(reading, content):
        if isinstance(record, dict):
            add_record(reading, layout, number, record)
        else:
            reading.report(
                "malformed_lines", number, f"expected an object with the strings {layout.text!r} and {layout.label!r}, got {cut(json.dumps(record))}"
            )


def read_squad(reading: Reading, content: str, layout: Layout) -> None:
    """Raises ``DataRefused`` for a document that is no JSON, or not SQuAD's. Problems name the question by its id, and by its number in the file in place of a line."""
    try:
        whole = _DECODER.decode(content)
    except json.JSONDecodeError as error:
        raise DataRefused(f"not JSON ({error.msg}, column {error.colno}) ({reading.path}:{error.lineno})") from None
    except (ValueError, RecursionError) as error:
        raise DataRefused(f"not JSON ({error}) ({reading.path}:1)") from None
    if not is_squad(whole):
        raise DataRefused(f'expected SQuAD\'s JSON, {{"data": [{{"paragraphs": …}}]}}, got {cut(json.dumps(whole))} ({reading.path}:1)')
    names = {"text": CONTEXT, "label": ANSWERS, "question": QUESTION}
    for number, record in flattened(whole["data"]):
        add_record(reading, layout.model_copy(update=names), number, record)


def records(reading: Reading, content: str) -> Iterator[tuple[int, Any]]:
    """The records of a document, each with the line that it begins on; with its own number where the document lists columns."""
    begin = _skip(content, 0)
    try:
        if content[begin : begin + 1] == "[":
            yield from _members(content, begin + 1)
            return
        whole, end = _DECODER.raw_decode(content, begin)
        if _skip(content, end) != len(content):
            raise json.JSONDecodeError("more than one document (JSON lines are format: jsonl)", content, end)
    except json.JSONDecodeError as error:
        raise DataRefused(f"not JSON ({error.msg}, column {error.colno}) ({reading.path}:{error.lineno})") from None
    except (ValueError, RecursionError) as error:
        raise DataRefused(f"not JSON ({error}) ({reading.path}:1)") from None
    yield from _in_object(reading, content, begin, whole)


def _members(content: str, place: int) -> Iterator[tuple[int, Any]]:
    """The members of a list whose bracket stands before ``place``. Raises ``JSONDecodeError``."""
    place, line, counted = _skip(content, place), 1, 0
    while content[place : place + 1] != "]":
        line, counted = line + content.count("\n", counted, place), place
        member, place = _DECODER.raw_decode(content, place)
        yield line, member
        place = _skip(content, place)
        if content[place : place + 1] == ",":
            place = _skip(content, place + 1)
        elif content[place : place + 1] != "]":
            raise json.JSONDecodeError("expected ',' or ']'", content, place)
    if _skip(content, place + 1) != len(content):
        raise json.JSONDecodeError("something stands behind the list", content, place + 1)


def _in_object(reading: Reading, content: str, begin: int, whole: Any) -> Iterator[tuple[int, Any]]:
    if rows := _rows(whole):
        yield from enumerate(rows, 1)
        return
    columns = _columns(whole)
    if columns:
        yield from ((i, dict(zip(columns, values, strict=True))) for i, values in enumerate(zip(*columns.values(), strict=True), 1))
        return
    lists = [key for key, value in whole.items() if isinstance(value, list) and value and isinstance(value[0], dict)] if isinstance(whole, dict) else []
    if len(lists) != 1:
        raise DataRefused(f"expected a list of objects, alone or under one key, got {cut(json.dumps(whole))} ({reading.path}:1)")
    members = whole[lists[0]]
    placed = _placed(content, begin, lists[0], len(members))
    yield from placed if [member for _, member in placed] == members else enumerate(members, 1)


def _placed(content: str, begin: int, key: str, count: int) -> list[tuple[int, Any]]:
    """The members of the first list under ``key``, with their lines; another list may be called the same further inside, so whoever asks compares."""
    opening = re.compile(rf"{re.escape(json.dumps(key, ensure_ascii=False))}\s*:\s*\[").search(content, begin)
    if opening is None:
        return []
    before = content.count("\n", 0, opening.end())
    return [(before + line, member) for line, member in islice(_nested(content[opening.end() :]), count)]


def _nested(content: str) -> Iterator[tuple[int, Any]]:
    """The members of a list that something may stand behind; the whole has been read as JSON before."""
    place, line, counted = _skip(content, 0), 1, 0
    while content[place] != "]":
        line, counted = line + content.count("\n", counted, place), place
        member, place = _DECODER.raw_decode(content, place)
        yield line, member
        place = _skip(content, place)
        place = _skip(content, place + 1) if content[place] == "," else place


def _rows(whole: Any) -> list[dict[str, Any]]:
    """Rows as pandas writes them beside columns: an object from the name of a row to the row (``index``), or a list of names and lists of values (``split``); empty
    where the document is neither. Rows are numbered or, where nothing is, more than columns."""
    if not isinstance(whole, dict) or not whole:
        return []
    if whole.keys() == {"columns", "index", "data"} and isinstance(whole["columns"], list) and isinstance(whole["data"], list):
        names = [str(name) for name in whole["columns"]]
        fit = all(isinstance(row, list) and len(row) == len(names) for row in whole["data"])
        return [dict(zip(names, row, strict=True)) for row in whole["data"]] if fit else []
    rows = list(whole.values())
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() and row for row in rows):
        return []
    numbered, within = (all(key.isdecimal() for key in keys) for keys in (whole, rows[0]))
    return rows if (numbered if numbered != within else len(rows) > len(rows[0])) else []


def _columns(whole: Any) -> dict[str, list[Any]]:
    """Columns of one length, as lists or as pandas writes them: an object from row to value; empty where the document is nothing of the kind."""
    if not isinstance(whole, dict) or not whole:
        return {}
    columns = {key: list(value.values()) if isinstance(value, Mapping) else value for key, value in whole.items()}
    plain = all(isinstance(values, list) and values and not isinstance(values[0], dict) for values in columns.values())
    return columns if plain and len({len(values) for values in columns.values()}) == 1 else {}


def _skip(content: str, place: int) -> int:
    match = _SPACE.match(content, place)
    return match.end() if match else place
