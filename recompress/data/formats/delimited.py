"""Tables as text: TSV whose quotes are characters like any other, and CSV and TSV after RFC 4180, where a quoted field may hold delimiters, quotes and line ends.

Every field is text. Nothing is turned into a number, a truth value or a missing one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from recompress.data.excerpt import cut
from recompress.data.formats.reading import Reading
from recompress.data.formats.records import add_record
from recompress.data.layout import Layout
from recompress.errors import DataRefused

_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?[,;|\t]*(?=\r?\n)', re.IGNORECASE)
LONGEST_FIELD = 1 << 27
"""Characters. The csv module's own limit, 131,072, is shorter than some documents."""


def read_delimited(reading: Reading, content: str, layout: Layout) -> None:
    """Raises ``DataRefused`` for a header that is missing, names a column twice or lacks one, and for quotes after which nobody knows where the next row begins."""
    header: list[str] = []
    for number, fields in records(reading, content, layout):
        if not header:
            header = fields if layout.header else [str(column) for column in range(1, len(fields) + 1)]
            _check_header(reading, layout, header, number)
            if layout.header:
                continue
        if len(fields) != len(header):
            reading.report("malformed_lines", number, f"expected {len(header)} columns, got {len(fields)}: {cut(_joined(layout, fields))}")
        else:
            add_record(reading, layout, number, dict(zip(header, fields, strict=True)))
    if not header:
        _check_header(reading, layout, [""], 1)


def records(reading: Reading, content: str, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins on, and its fields. Empty lines are no rows."""
    _, content = separator_of(content)
    if layout.format == "tsv":
        yield from ((number, line.split("\t")) for number, line in enumerate(content.split("\n"), 1) if line)
        return
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter_of(layout), strict=True)
    while True:
        first = rows.line_num + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataRefused(f"{_quotes(str(error))}; format: tsv takes quotes as characters ({reading.path}:{first})") from None
        if fields:
            yield first, fields


def separator_of(content: str) -> tuple[str, str]:
    """The delimiter that Excel's own first line names (``sep=;``), and the text with nothing on that line; an empty string and the whole text where there is none."""
    line = _SEPARATOR.match(content)
    return (line[1], content[line.end() :]) if line else ("", content)


def delimiter_of(layout: Layout) -> str:
    return layout.delimiter or ("," if layout.format == "csv" else "\t")


def _quotes(error: str) -> str:
    if "expected after" in error:
        return "a quote stands inside a quoted field; it should be written twice there"
    if "unexpected end" in error:
        return "the quote that this row opens is never closed"
    return f"the row cannot be read as quoted fields: {error}"


def _check_header(reading: Reading, layout: Layout, header: list[str], number: int) -> None:
    for name in layout.columns:
        if name not in header:
            raise DataRefused(f"expected a header with a column {name!r}, got {cut(_joined(layout, header))} ({reading.path}:{number})")
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise DataRefused(f"two columns are called {twice!r}; rename one ({reading.path}:{number})")


def _joined(layout: Layout, fields: list[str]) -> str:
    return delimiter_of(layout).join(fields)
