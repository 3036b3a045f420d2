"""From a record (a row of a table, an object of JSON) to an example: which column is the text, which the label, and what its values mean.

Labels are text. A number, true and false are written as the file writes them; "NA" and "null" are labels like any other, and only what is really missing (JSON's
null, an empty field, a null of Parquet) is no label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from recompress.data.excerpt import cut
from recompress.data.formats.reading import Reading, Row
from recompress.data.formats.spans import read_spans, words_and_tags
from recompress.data.formats.tag_schemes import LOOKS, TAGS, to_iob2
from recompress.data.labels import settled
from recompress.data.layout import Layout
from recompress.data.questions import question_of, short

Record = Mapping[str, Any]
Names = Mapping[str, Sequence[str]]
YES, NO = ("1", "true", "yes"), ("0", "false", "no", "")
"""What a column of its own may say of a label."""


class Written(str):
    """A number of JSON as it is written there, so that 1.50 stays 1.50. It is no text."""


class Unreadable(Exception):
    """Why a record is no example, in words."""


def add_record(reading: Reading, layout: Layout, number: int, record: Record, names: Names | None = None) -> None:
    """Add the example that a record is, or report why it is none. ``number`` is its line or row; ``names`` what the numbers in a column mean, where the file
    itself says so."""
    for column, wanted in layout.where.items():
        if _plain(value_at(record, column)) != wanted:
            reading.report("not_chosen", number, f"{column} is not {wanted!r}")
            return
    try:
        place = {key: _named(record, column) for key, column in (("slice", layout.slice), ("group", layout.group), ("split", layout.split))}
        if layout.format == "jsonl" and layout.slice is None:
            place["slice"] = (_plain(record.get("slice")) or "").strip()
        text = value_at(record, layout.text)
        if layout.finds_spans:
            start = value_at(record, layout.answer_start) if layout.answer_start else None
            asked = question_of(record, value_at(record, layout.question), text, value_at(record, layout.label), start)
            reading.add(Row(asked.words, asked.labels, number, **place | {"group": asked.group if layout.group is None else short(place["group"])}))
            return
        labels = layout.names or (names or {}).get(layout.label)
        if layout.tagged:
            words, tags = _tagged(layout, record, text, labels)
            _add_words(reading, number, words, tags, place)
        else:
            texts = tuple(_text(layout, record, value_at(record, column)) for column in layout.texts)
            _add_text(reading, number, texts, _labels(layout, record, labels) if layout.labelled else (), place, several=layout.head.answer == "labels")
    except (Unreadable, ValueError) as error:
        reading.report("malformed_lines", number, str(error))


def value_at(record: Any, column: str) -> Any:
    """The value of a column or key, or what dots lead to inside (``data.text``, ``annotations.0.result``); None where it is not there."""
    if isinstance(record, Mapping) and column in record:
        return record[column]
    value = record
    for step in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _text(layout: Layout, record: Record, text: Any) -> str:
    if not isinstance(text, str) or isinstance(text, Written):
        names = [repr(name) for name in (*layout.texts, *([layout.label] if layout.labelled and not layout.label_columns else []))]
        wanted = f"the strings {', '.join(names[:-1])} and {names[-1]}" if names[1:] else f"the string {names[0]}"
        raise Unreadable(f"expected an object with {wanted}, got {cut(_shown(record))}")
    return text


def _labels(layout: Layout, record: Record, names: Sequence[str] | None) -> tuple[str, ...]:
    """What a row says, by what its benchmark asks for."""
    if layout.head.answer == "labels":
        held = _held(layout, record) if layout.label_columns else _several(layout, record, names)
        return settled(held, "labels")
    if layout.head.answer == "text":
        return _references(layout, record)
    label = _label(layout, record, names if layout.head.answer == "label" else None)
    if layout.head.answer == "number":
        return settled([_number(label)], "number")
    return (label,)


def _references(layout: Layout, record: Record) -> tuple[str, ...]:
    """The right texts: one, or a list of some. Raises ``Unreadable`` where there is none."""
    value = value_at(record, layout.label)
    texts = [_plain(one) for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])]
    if not texts or not all(text and text.strip() for text in texts):
        raise Unreadable(f"expected the text that is right under {layout.label!r}, or a list of such, got {cut(_shown(record))}")
    return tuple(map(str, texts))


def _number(text: str) -> str:
    """Raises ``Unreadable`` for what is no finite number."""
    try:
        finite = math.isfinite(float(text))
    except ValueError:
        finite = False
    if not finite:
        hint = "; a comma is no decimal point" if "," in text else ""
        raise Unreadable(f"a number is expected, got {cut(text)}{hint}")
    return text


def _held(layout: Layout, record: Record) -> list[str]:
    """The columns that say yes."""
    held = []
    for column in layout.label_columns or ():
        said = (_plain(value_at(record, column)) or "").strip().lower()
        said = said.removesuffix(".0")
        if said not in YES and said not in NO:
            raise Unreadable(f"{column!r} says whether its label holds, with 1 or 0, true or false; got {cut(said)}")
        held += [column] * (said in YES)
    return held


def _several(layout: Layout, record: Record, names: Sequence[str] | None) -> list[str]:
    """The labels of a list, of a field that holds a list as JSON, of a text with a separator; an empty one says that none holds."""
    value = value_at(record, layout.label)
    if isinstance(value, str) and not isinstance(value, Written):
        listed = listed_in(value)
        if listed is None:
            parts = value.split(layout.separator) if layout.separator else [value]
            listed = [part.strip() for part in parts if part.strip()]
        value = listed
    if isinstance(value, Written | int) and not isinstance(value, bool):
        value = [value]
    if value is None or not isinstance(value, Sequence):
        raise Unreadable(f"expected a list of labels under {layout.label!r}, empty where none holds, got {cut(_shown(record))}")
    if any(_plain(one) is None or not (_plain(one) or "").strip() for one in value):
        raise Unreadable(f"a label is empty or missing: {cut(_shown(value))}")
    return [_by_name(one, names) for one in value]


def _label(layout: Layout, record: Record, names: Sequence[str] | None) -> str:
    value = value_at(record, layout.label)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > 1:
            raise Unreadable(f"{len(value)} labels stand in {layout.label!r}, one is expected: {cut(_shown(value))}")
        value = value[0] if value else None
    if _plain(value) is None:
        raise Unreadable(f"expected an object with the strings {layout.text!r} and {layout.label!r}, got {cut(_shown(record))}")
    return _by_name(value, names)


def _tagged(layout: Layout, record: Record, words: Any, names: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    value = listed_in(value_at(record, layout.label))
    if layout.tags == "spans":
        text = _text(layout, record, words)
        if value is None:
            raise Unreadable(f"expected a list of spans under {layout.label!r}, got {cut(_shown(record))}")
        return words_and_tags(text, read_spans(value, text))
    listed = listed_in(words)
    if listed is None or value is None:
        raise Unreadable(f"expected lists of words {layout.text!r} and tags {layout.label!r}, got {cut(_shown(record))}")
    if len(listed) != len(value):
        raise Unreadable(f"{len(listed)} words and {len(value)} tags; there must be one for each word: {cut(_shown(listed))}")
    tags = [_by_name(tag, names) for tag in value]
    if wrong := next((tag for tag in tags if not TAGS[layout.tags].fullmatch(tag)), None):
        hint = "; numbers need their names (names: in params.yaml)" if wrong.lstrip("-").isdigit() else "; tags: says how entities are written"
        raise Unreadable(f"{wrong!r} is no tag like {LOOKS[layout.tags]}{hint}")
    if any(not isinstance(word, str) or isinstance(word, Written) for word in listed):
        raise Unreadable(f"a word is no text: {cut(_shown(listed))}")
    return tuple(listed), to_iob2(tags, layout.tags)


def _by_name(value: Any, names: Sequence[str] | None) -> str:
    """A number is the place of its name, also where another label is called like it; text is a name, or a number that a table of text holds."""
    label = _plain(value) or ""
    is_number = isinstance(value, Written | int | float) and not isinstance(value, bool)
    if names is None or (label in names and not is_number):
        return label
    place = label.removesuffix(".0")
    if place.isdecimal() and int(place) < len(names):
        return names[int(place)]
    raise Unreadable(f"{label!r} is none of the {len(names)} names, nor the number of one (from 0): {', '.join(names[:8])}")


def _plain(value: Any) -> str | None:
    """A value as text; None where it is missing."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise Unreadable(f"expected text, a number, true or false, got {cut(_shown(value))}")


def _named(record: Record, column: str | None) -> str:
    """What a column says that names a slice, a group or a split; its key has to be there."""
    if not column:
        return ""
    value = _plain(value_at(record, column))
    if value is None:
        raise Unreadable(f"expected the string {column!r}, empty where the text belongs to nothing, got {cut(_shown(record))}")
    return value.strip()


def listed_in(value: Any) -> Sequence[Any] | None:
    """A list, or the list that a field of CSV holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Sequence) and not isinstance(value, str) else None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _add_words(reading: Reading, number: int, words: tuple[str, ...], tags: tuple[str, ...], place: dict[str, str]) -> None:
    if not words:
        reading.report("empty_words", number, "there is no word")
    elif any(not word.strip() for word in words):
        reading.report("empty_words", number, f"a word is empty, only its tag is there: {cut(_shown(words))}")
        whole = [(word, tag) for word, tag in zip(words, tags, strict=True) if word.strip()]
        if whole:
            reading.add(Row(tuple(word for word, _ in whole), tuple(tag for _, tag in whole), number, **place))
    else:
        reading.add(Row(words, tags, number, **place))


def _add_text(reading: Reading, number: int, texts: tuple[str, ...], labels: tuple[str, ...], place: dict[str, str], *, several: bool) -> None:
    if not all(text.strip() for text in texts):
        which = "the text is" if len(texts) == 1 else "one of the two texts is"
        reading.report("empty_words", number, f"{which} empty, only its label {', '.join(labels)!r} is there" if labels else f"{which} empty")
    elif any(not label.strip() for label in labels) and not several:
        reading.report("malformed_lines", number, f"the label is empty: {cut(texts[0])}")
    else:
        reading.add(Row(texts, labels, number, **place))
