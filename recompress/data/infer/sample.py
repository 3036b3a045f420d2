"""The first records of a file, as they stand in it, for whoever looks at columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from recompress.data.formats import delimited, json_files, tables
from recompress.data.formats.reading import Reading, text_of
from recompress.data.formats.records import Unreadable, listed_in
from recompress.data.layout import DELIMITED, Layout

SAMPLE = 5000
"""Records that are looked at."""
WHOLE = 100
"""So many fields have to be lists before a column is taken to hold lists; what is none further down is named when it is read."""


def sample(path: Path, dials: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The first records of a file, and the names that it gives to the numbers in its columns. Raises ``DataRefused`` as readers do."""
    layout = Layout.model_validate({"benchmark": "text-classification", **{key: value for key, value in dials.items() if key in Layout.model_fields}})
    if layout.format in ("parquet", "datasets"):
        schema, batches = tables.open_table(path, layout.format)
        tables.check_names(path, schema.names)
        rows = islice((record for batch in batches for record in tables.records_of(batch)), SAMPLE)
        return [{name: None if isinstance(value, Unreadable) else value for name, value in row.items()} for row in rows], tables.class_names(path, schema)
    reading = Reading(path, strict=False)
    records = list(islice(_records(reading, text_of(reading, layout.encoding), layout), SAMPLE))
    return (_with_lists(records) if layout.format in DELIMITED else records), {}


def _records(reading: Reading, text: str, layout: Layout) -> Iterator[dict[str, Any]]:
    if layout.format in DELIMITED:
        rows = (fields for _, fields in delimited.records(reading, text, layout))
        first = next(rows, [])
        header = first if layout.header else [str(i) for i in range(1, len(first) + 1)]
        if not layout.header:
            yield dict(zip(header, first, strict=True))
        yield from (dict(zip(header, fields, strict=False)) for fields in rows if len(fields) == len(header))
    else:
        values = json_files.records(reading, text) if layout.format == "json" else json_files.line_records(text)
        yield from (record for _, record in values if isinstance(record, dict))


def _with_lists(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lists in place of the JSON that holds them, as the readers take it, in columns that hold nothing else; one value in brackets may be a label that looks so."""
    for column in dict.fromkeys(key for record in records for key in record):
        filled = [record for record in records if record.get(column)]
        lists = [listed_in(record[column]) for record in filled]
        if any(one is not None and (len(one) != 1 or isinstance(one[0], dict)) for one in lists) and all(one is not None for one in lists[:WHOLE]):
            for record, one in zip(filled, lists, strict=True):
                record[column] = record[column] if one is None else one
    return records
