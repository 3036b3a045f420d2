"""Which columns are words with their tags, or a text with spans of its characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from recompress.data.formats.records import value_at
from recompress.data.formats.spans import read_spans
from recompress.data.infer.looks import TEXTS, Records, all_in, by_name, inside
from recompress.data.infer.tags import infer_scheme
from recompress.errors import DataRefused

TOKENS, TAG_LISTS = ("tokens", "words"), ("ner_tags", "tags", "labels", "label", "ner", "entities")
SPAN_LISTS = ("spans", "entities", "label", "labels", "annotations")


def infer_token_lists(
    records: Records, columns: list[str], names: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    lists = [column for column in columns if any(isinstance(value_at(record, column), list) for record in records[:50])]
    texts = [given["text"]] if "text" in given else [column for column in by_name(lists, TOKENS) if all_in(records, column, str)]
    for text in texts:
        tags = [given["label"]] if "label" in given else [column for column in by_name(lists, TAG_LISTS) if column != text]
        for label in tags:
            pairs = [(value_at(record, text), value_at(record, label)) for record in records]
            if not all(isinstance(words, list) and isinstance(marks, list) and len(words) == len(marks) for words, marks in pairs[:50]):
                continue
            known = given.get("names") or names.get(label)
            sequences = [[_tag(mark, known) for mark in marks] for _, marks in pairs if isinstance(marks, list)]
            scheme = given.get("tags") or infer_scheme(sequences)
            if scheme is None and all(tag.lstrip("-").isdigit() for sequence in sequences for tag in sequence):
                raise DataRefused(f"the tags in {label!r} are numbers, and nothing says what they mean; names: lists them, the name of 0 first")
            if scheme is not None:
                dials = {"benchmark": "token-classification", "text": text, "label": label, "tags": scheme}
                return dials, {"text": "lists of words", "label": "a tag for each word", "tags": f"how the tags look: {_shown(sequences)}"}, []
    return None


def infer_spans(
    records: Records, columns: list[str], _: Mapping[str, Sequence[str]], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]] | None:
    for text in [given["text"]] if "text" in given else by_name([*columns, *inside(records, columns)], TEXTS):
        if not any(isinstance(value_at(record, text), str) for record in records[:50]):
            continue
        for label in [given["label"]] if "label" in given else by_name(columns, SPAN_LISTS):
            values = [(value_at(record, label), value_at(record, text)) for record in records]
            lists = [(value, words) for value, words in values if isinstance(value, list) and value and isinstance(words, str)]
            if lists and sum(_holds_spans(value, words) for value, words in lists) >= 0.5 * len(lists):
                dials = {"benchmark": "token-classification", "text": text, "label": label, "tags": "spans"}
                return dials, {"label": "spans of characters", "tags": "first character, the one behind the last, type"}, []
    return None


def _holds_spans(value: Any, text: str) -> bool:
    try:
        return bool(read_spans(value, text))
    except ValueError:
        return False


def _tag(mark: Any, names: Sequence[str] | None) -> str:
    tag = str(mark)
    return names[int(tag)] if names and tag.isdecimal() and int(tag) < len(names) else tag


def _shown(sequences: Sequence[Sequence[str]]) -> str:
    return ", ".join(tag for tag, _ in Counter(tag for sequence in sequences for tag in sequence).most_common(5))
