"""Which columns are two texts with a label, several labels a text, or a number a text. What could be read in two ways is taken only where it was asked for.

*sure* says that nobody has named the benchmark: then two texts are a pair by their names alone (``premise`` and ``hypothesis``), a field is a list of labels only
where it is stored as one, and numbers are numbers only where they have fractions and many values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.data.formats.records import Written, value_at
from recompress.data.infer.looks import LABELS, Records, best_text, by_name, distinct, is_flag, is_label, is_text, mean_length, numbers_of, values_of

Inferred = tuple[dict[str, Any], dict[str, str], list[str]]
PAIRS = (
    *(("premise", "hypothesis"), ("text", "text_pair"), ("sentence1", "sentence2"), ("sentence_a", "sentence_b"), ("text1", "text2"), ("text_a", "text_b")),
    *(("question1", "question2"), ("sentence_1", "sentence_2"), ("text_1", "text_2"), ("claim", "evidence")),
    *((asked, text) for asked in ("question", "query") for text in ("sentence", "paragraph", "passage", "context", "document")),
)
"""What the two texts of a pair are usually called."""
SEPARATORS = (";", "|", ",", " / ")
NUMBERS = ("score", "value", "rating", "label", "target", "similarity", "grade", "stars", "labels")
MANY = 20
"""Different values from which on fractions are numbers and no classes."""
RARE = 40
"""Characters of a label at most, where labels stand beside each other in one field."""


def infer_pairs(records: Records, columns: list[str], given: Mapping[str, Any], *, sure: bool) -> Inferred | None:
    texts = [column for column in columns if is_text(records, column)]
    lower = {column.lower(): column for column in texts}
    pairs = [(lower[one], lower[other]) for one, other in PAIRS if one in lower and other in lower]
    if "text" in given and "text_pair" in given:
        pairs = [(given["text"], given["text_pair"])]
    elif not sure and not pairs:
        long = sorted(texts, key=lambda column: -distinct(records, column))[:2]
        pairs = [tuple(sorted(long, key=columns.index))] if len(long) == 2 else []  # type: ignore[list-item]
    for text, other in pairs:
        labels = [given["label"]] if "label" in given else [c for c in by_name(columns, LABELS) if c not in (text, other) and is_label(records, c)]
        if labels:
            why = {"text": "the first text", "text_pair": "the second", "label": f"{distinct(records, labels[0]):,} different values"}
            return {"benchmark": "pair-classification", "text": text, "text_pair": other, "label": labels[0]}, why, []
    return None


def infer_flags(records: Records, columns: list[str], given: Mapping[str, Any], *, sure: bool) -> Inferred | None:
    texts = [column for column in columns if is_text(records, column)]
    if "text" not in given and not texts:
        return None
    text = given.get("text") or best_text(records, texts)
    others = [column for column in columns if column != text]
    if "label_columns" in given:
        return _columns(text, list(given["label_columns"]), [])
    named = [given["label"]] if "label" in given else by_name(others, LABELS)
    for label in named:
        if _holds_lists(records, label) and not _stand_by_words(records, label, others):
            return {"benchmark": "multi-label-classification", "text": text, "label": label}, {"text": "the text", "label": "lists of labels"}, []
    if not sure and (found := _separated(records, named, given)):
        label, separator = found
        dials = {"benchmark": "multi-label-classification", "text": text, "label": label, "separator": separator}
        return dials, {"text": "the text", "label": "labels in one field", "separator": "stands between labels"}, []
    flags = [column for column in others if is_flag(records, column)]
    if len(flags) > 1 and (not sure or not any(column.lower() in LABELS for column in others)):
        notes = [f"{len(flags)} columns say 0 or 1: each is taken for a label that may hold; label: names one of them as the only label"] if sure else []
        return _columns(text, flags, notes)
    return None


def infer_numbers(records: Records, columns: list[str], given: Mapping[str, Any], *, sure: bool) -> Inferred | None:
    texts = [column for column in columns if is_text(records, column) and numbers_of(records, column) is None]
    if "text" not in given and not texts:
        return None
    text = given.get("text") or best_text(records, texts)
    long = [column for column in texts if mean_length(records, column) > MANY and distinct(records, column) > len(records) / 2]
    if sure and len(long) > 1:
        return None  # a number for two texts is another question
    for label in [given["label"]] if "label" in given else [column for column in by_name(columns, NUMBERS) if column != text]:
        numbers = numbers_of(records, label)
        named = label.lower() in NUMBERS or "label" in given or not sure
        if numbers is None or not named or len(set(numbers)) < 2:
            continue
        if not sure or (len(set(numbers)) > MANY and any(number != round(number) for number in numbers)):
            notes = ["numbers with fractions are learned as numbers; benchmark: text-classification takes each for a class"] if sure else []
            return {"benchmark": "text-regression", "text": text, "label": label}, {"text": "the text", "label": "a number for each text"}, notes
    return None


def _columns(text: str, flags: list[str], notes: list[str]) -> Inferred:
    dials = {"benchmark": "multi-label-classification", "text": text, "label_columns": flags}
    return dials, {"text": "the text", "label_columns": "each says 0 or 1"}, notes


def _holds_lists(records: Records, column: str) -> bool:
    """Lists of plain values of which some have none or several, so that no single label would do."""
    values = [value_at(record, column) for record in records]
    lists = [value for value in values if isinstance(value, list)]
    plain = all(isinstance(item, str | int | Written) for value in lists for item in value)
    return bool(lists) and len(lists) == len(values) and plain and any(len(value) != 1 for value in lists) and any(lists)


def _stand_by_words(records: Records, column: str, others: list[str]) -> bool:
    """Whether the lists are as long as those of another column, row for row: then they are tags of words."""
    sizes = [len(value_at(record, column)) for record in records]
    lists = [[value_at(record, other) for record in records] for other in others if other != column]
    return any(all(isinstance(value, list) for value in values) and [*map(len, values)] == sizes for values in lists)


def _separated(records: Records, named: list[str], given: Mapping[str, Any]) -> tuple[str, str] | None:
    """A column of short labels with something between them, and what that is: the separator that leaves the fewest different labels."""
    for label in named:
        values = [str(value) for value in values_of(records, label)]
        if not values or any(isinstance(value_at(record, label), list | dict) for record in records):
            continue
        for separator in [given["separator"]] if "separator" in given else SEPARATORS:
            parts = [part.strip() for value in values for part in value.split(separator)]
            if len(parts) > len(values) and max(map(len, parts)) <= RARE and len(set(parts)) < len(set(values)):
                return label, separator
    return None
