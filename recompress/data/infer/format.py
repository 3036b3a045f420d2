"""Which format a file is in, by its ending and, above all, by what stands in it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from recompress.data.formats.conll_columns import columns_of
from recompress.data.formats.delimited import separator_of
from recompress.data.formats.reading import Reading, text_of
from recompress.data.formats.tag_schemes import TAGS
from recompress.data.infer.columns import KNOWN
from recompress.data.questions import looks_like_squad
from recompress.errors import DataRefused

LINES = 400
"""So many lines from the beginning are looked at."""
DELIMITERS = ",;\t|"
CONLL = (".conll", ".conllu", ".conllx", ".bio", ".iob", ".iob2", ".bioes", ".bilou")
BY_ENDING = {".parquet": "parquet", ".pq": "parquet", ".arrow": "datasets", ".jsonl": "jsonl", ".ndjson": "jsonl", **dict.fromkeys(CONLL, "conll")}


def infer_format(path: Path, encoding: str, given: str | None = None) -> dict[str, Any]:
    """Dials of ``Layout`` that say the format: ``format``, ``delimiter``, ``header``. ``given`` is the format where it is known.

    Raises ``DataRefused`` for text in another encoding, which is named, and for what is no text and no format that is known.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if given == "squad":
        return {"format": given}
    kind = given or ("parquet" if start.startswith(b"PAR1") else BY_ENDING.get(path.suffix.lower()))
    if kind in ("parquet", "datasets", "conll", "jsonl", "lines"):
        return {"format": kind}
    text = text_of(Reading(path, strict=True), encoding)
    if not text.strip():
        raise DataRefused(f"{path} is empty")
    if kind == "json" or (kind is None and text.lstrip()[:1] in ("{", "[")):
        return {"format": "squad" if kind is None and looks_like_squad(text) else kind or ("json" if _is_document(text) else "jsonl")}
    if kind in ("csv", "tsv", "quoted_tsv") or (kind is None and path.suffix.lower() in (".csv", ".tsv", ".tab")):
        return _delimited(path, text, kind)
    if looks_like_conll(text):
        return {"format": "conll"}
    if "\t" in text[:2000] and _consistent([line.split("\t") for line in text.split("\n")[:LINES] if line]):
        return _delimited(path, text, kind)
    return {"format": "lines"}


def _is_document(text: str) -> bool:
    """Whether the text is one JSON document, and not an object a line."""
    lines = [line.strip() for line in text.split("\n", 3)[:3] if line.strip()]
    several = len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines[:2])
    return text.lstrip().startswith("[") or not several


def _delimited(path: Path, text: str, kind: str | None) -> dict[str, Any]:
    said, text = separator_of(text)
    text = text.removeprefix("\n") if said else text
    first = text.split("\n", 1)[0]
    if kind is None and path.suffix.lower() != ".csv":
        kind = "quoted_tsv" if _is_quoted(text) else "tsv"
    dials: dict[str, Any] = {"format": kind or "csv"}
    between = "\t"
    if dials["format"] == "csv":
        between = max(DELIMITERS, key=lambda mark: _columns(text, mark))
        if between not in first or _columns(text, between) < 2:
            between = ","
        between = said or between
        dials |= {"delimiter": between} if between != "," else {}
    rows = _quoted_rows(text, between) if dials["format"] != "tsv" else [line.split("\t") for line in text.split("\n")[:LINES] if line]
    return dials if has_header(rows) else dials | {"header": False}


def _columns(text: str, between: str) -> int:
    rows = _quoted_rows(text, between)
    return len(rows[0]) if rows and _consistent(rows) else 0


def _quoted_rows(text: str, between: str) -> list[list[str]]:
    """The first rows after RFC 4180; those before a mistake, where there is one."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    try:
        while len(rows) < LINES:
            rows.append(next(reader))
    except (StopIteration, csv.Error):
        pass
    return [row for row in rows if row]


def _consistent(rows: list[list[str]]) -> bool:
    """Whether nearly all rows have as many columns as the first, at least two."""
    return bool(rows) and len(rows[0]) > 1 and sum(len(row) == len(rows[0]) for row in rows) >= 0.9 * len(rows)


def _is_quoted(text: str) -> bool:
    """Whether quotes around fields of tabs are marks: they are where every field that begins with one also ends with one, or where only so the rows are whole."""
    fields = [field for line in text.split("\n") for field in line.split("\t")]
    opened = [field for field in fields if field.startswith('"')]
    if not opened:
        return False
    if all(len(field) > 1 and field.endswith('"') and '"' not in field[1:-1].replace('""', "") for field in opened):
        return True
    lines = [line.split("\t") for line in text.split("\n") if line]
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True) if row]
    except csv.Error:
        return False
    return {len(row) for row in rows} == {len(lines[0])} != {len(line) for line in lines}


def has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: no field is empty, a number, long or there twice, and none is a value of its column too."""
    if not rows:
        return True
    first, others = rows[0], rows[1:]
    names = [field.strip() for field in first]
    if any(name.lower() in KNOWN and not any(len(row) > i and row[i].strip() == name for row in others) for i, name in enumerate(names)):
        return True
    if len(set(names)) < len(names) or any(not name or len(name) > 60 or re.fullmatch(r"[-+]?\d+([.,]\d+)?", name) for name in names):
        return not all(names) and len(set(names)) == len(names) and all(len(name) <= 60 for name in names)  # pandas leaves the index without a name
    return not any(len(row) > i and row[i].strip() == name for row in others for i, name in enumerate(names))


def looks_like_conll(text: str) -> bool:
    """Whether most lines are columns of which one is a tag, with blank lines between."""
    lines = [line for line in text.split("\n")[:LINES] if line.strip() and not line.startswith(("# ", "-DOCSTART-"))]
    if len(lines) < 2:
        return False
    rows = [columns_of(line) for line in lines]
    width = len(rows[0])
    if width < 2 or sum(len(row) == width for row in rows) < 0.9 * len(rows):
        return False
    whole = [row for row in rows if len(row) == width]
    return any(is_tag_column([row[i] for row in whole]) for i in range(1, width))


def is_tag_column(values: list[str]) -> bool:
    """Whether a column is one of tags: in one scheme or another, O among them."""
    kinds = set(values)
    return "O" in kinds and len(kinds) <= max(60, len(values) // 10) and any(all(pattern.fullmatch(value) for value in kinds) for pattern in TAGS.values())
