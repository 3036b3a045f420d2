"""What stands in a column, or under a key, of records: a text, a label, a number; and in which order columns are looked at, by the names that they usually have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recompress.data.formats.records import Written, value_at

Records = Sequence[Mapping[str, Any]]
TEXTS = ("text", "sentence", "content", "body", "tweet", "review", "document", "message", "comment", "utterance", "query", "question", "article", "data.text")
LABELS = ("label", "labels", "category", "class", "target", "sentiment", "intent", "topic", "tag", "answer", "stars", "rating")
MOST_LABELS = 1000


def by_name(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns in the order of names that they usually have; the others behind, in their own."""
    return sorted(dict.fromkeys(columns), key=lambda column: names.index(column.lower()) if column.lower() in names else len(names))


def inside(records: Records, columns: list[str]) -> list[str]:
    """``data.text`` of records whose column ``data`` is an object."""
    return list(
        dict.fromkeys(f"{column}.{key}" for record in records[:20] for column in columns if isinstance(record.get(column), dict) for key in record[column])
    )


def all_in(records: Records, column: str, kind: type) -> bool:
    values = [value for record in records[:50] if isinstance(value := value_at(record, column), list)]
    return bool(values) and all(isinstance(item, kind) and not isinstance(item, Written) for value in values for item in value)


def values_of(records: Records, column: str) -> list[Any]:
    return [value for record in records if (value := value_at(record, column)) is not None and value != ""]


def is_text(records: Records, column: str) -> bool:
    values = values_of(records, column)
    return (
        bool(values) and all(isinstance(value, str) and not isinstance(value, Written) for value in values) and any(c.isalpha() for c in "".join(values[:50]))
    )


def best_text(records: Records, texts: list[str]) -> str:
    named = [column for column in by_name(texts, TEXTS) if column.lower() in TEXTS]
    return named[0] if named else max(texts, key=lambda column: (mean_length(records, column), column))


def mean_length(records: Records, column: str) -> float:
    values = values_of(records, column)
    return sum(len(str(value)) for value in values) / len(values) if values else 0.0


def distinct(records: Records, column: str) -> int:
    return len({str(value) for value in values_of(records, column)})


def is_plain(records: Records, column: str) -> bool:
    """More than one value, none of them a list or an object."""
    values = values_of(records, column)
    return distinct(records, column) > 1 and not any(isinstance(value, list | dict) for value in values)


def is_label(records: Records, column: str) -> bool:
    """Few values that come again and again; text, numbers, booleans, or lists of one of them."""
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values_of(records, column)]
    if not values or any(isinstance(value, list | dict) for value in values) or len(values) < 0.9 * len(records):
        return False
    kinds = len({str(value) for value in values})
    return 1 < kinds <= min(MOST_LABELS, max(2, len(values) // 2)) and max(len(str(value)) for value in values) <= 80


def is_flag(records: Records, column: str) -> bool:
    """Nothing but 0 and 1, true and false, and both of them."""
    found = {str(value).strip().lower().removesuffix(".0") for record in records if (value := value_at(record, column)) is not None and value != ""}
    return found in ({"0", "1"}, {"true", "false"})


def numbers_of(records: Records, column: str) -> list[float] | None:
    """The numbers in a column; None where something else stands in it, or nothing in some record."""
    try:
        numbers = [float(str(value_at(record, column))) for record in records]
    except ValueError:
        return None
    return numbers if numbers and all(abs(number) < float("inf") for number in numbers) else None
