"""What a file or folder of data looks like: its format, its columns, its labels, its splits and slices, and how long and in which scripts its texts are."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from recompress.benchmarks import BenchmarkName
from recompress.data.readers import Format, read_rows
from recompress.errors import DataRefused, InputError
from recompress.records import Split
from tasks.scaffold.columns import Columns, columns_of
from tasks.scaffold.layout import Layout, layout_of

TABLES = {".csv": ",", ".tsv": "\t"}
FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll", ".bio": "conll", ".iob": "conll", ".iob2": "conll"}
LOOKED_AT = 5_000
"""Rows of each file that are looked at."""


@dataclass(frozen=True)
class Inferred:
    """A data set as it was understood."""

    benchmark: BenchmarkName
    format: Format
    layout: Layout
    sources: dict[str, Path]
    """Each file of the data set, by its path below the raw folder."""
    columns: Columns | None
    labels: tuple[str, ...]
    """By how often they occur."""
    texts: tuple[str, ...]
    """Some of its texts, words with spaces between them."""
    rows: int
    """How many were looked at."""
    scripts: tuple[tuple[str, float], ...] = field(default=())

    @property
    def splits(self) -> tuple[Split, ...]:
        return self.layout.splits

    @property
    def lines(self) -> Iterator[str]:
        """What a person reads before anything is believed."""
        files = f"{len(self.sources)} file{'s' if len(self.sources) > 1 else ''} ({self.layout.files})"
        yield f"format    {self.format}, {files}"
        if self.columns is not None:
            others = f"; not used: {', '.join(self.columns.others)}" if self.columns.others else ""
            yield f"columns   text: {self.columns.text}, label: {self.columns.label}{others}"
        yield f"benchmark {self.benchmark}"
        if self.labels:
            yield f"labels    {len(self.labels)}: {', '.join(self.labels[:10])}{' …' if len(self.labels) > 10 else ''}"
        missing = [split for split in ("dev", "test") if split not in self.splits]
        yield f"splits    {', '.join(self.splits)}{f'; {chr(32).join(missing)} split off train' if missing and self.benchmark != 'language-modelling' else ''}"
        if self.layout.slices:
            yield f"slices    {', '.join(self.layout.slices)}"
        yield f"scripts   {', '.join(f'{name} {100 * share:.0f} %' for name, share in self.scripts) or 'no letters'}"
        lengths = sorted(len(text.split()) for text in self.texts)
        yield f"lengths   {lengths[len(lengths) // 2]} words in the middle, {lengths[int(0.99 * (len(lengths) - 1))]} at 99 %, {lengths[-1]} at most"


def infer(data: Path, benchmark: str | None, name: str) -> Inferred:
    """Look at a file or a folder. Raises ``InputError`` for what is not there, is empty, or cannot be told apart, and ``DataRefused`` for what cannot be read."""
    sources = _files(data, name)
    kind = _format_of(list(sources.values()))
    sources = {_stored_as(place): path for place, path in sources.items()}
    layout = layout_of(sorted(sources))
    rows = [row for path in sources.values() for row in _rows(path, kind)]
    columns = columns_of(rows, next(iter(sources.values()))) if kind == "jsonl" else None
    texts, labels = _texts_and_labels(rows, columns)
    found = _benchmark_of(kind, benchmark, data)
    return Inferred(found, kind, layout, sources, columns, tuple(labels), tuple(texts[:: max(1, len(texts) // 2000)]), len(rows), scripts_of(texts))


def _files(data: Path, name: str) -> dict[str, Path]:
    """Every file of the data set by the path that it will have. Hidden files are nobody's data."""
    if not data.exists():
        raise InputError(f"{data} is not there; --data takes a file or a folder")
    if data.is_file():
        return {f"{name}{data.suffix.lower()}": data}
    found = {path.relative_to(data).as_posix(): path for path in sorted(data.rglob("*")) if path.is_file() and not path.name.startswith(".")}
    found = {place: path for place, path in found.items() if path.suffix.lower() in {*TABLES, *FORMATS, ".txt"}}
    if not found:
        raise InputError(f"{data} holds no file of data that can be read; expected {', '.join(sorted({*TABLES, *FORMATS, '.txt'}))}")
    return found


def _stored_as(place: str) -> str:
    """Tables are stored as JSON lines, which keep whatever stands in a field."""
    path = PurePosixPath(place)
    return path.with_suffix(".jsonl").as_posix() if path.suffix.lower() in TABLES else place


def store(source: Path, target: Path) -> None:
    """A file of the data set where the project keeps it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix.lower() in TABLES:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in read_table(source))
        target.write_bytes("".join(lines).encode())
    else:
        shutil.copyfile(source, target)


def _format_of(paths: Sequence[Path]) -> Format:
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1:
        raise InputError(f"the files are of several kinds ({', '.join(sorted(suffixes))}); give those of one kind")
    suffix = suffixes.pop()
    if suffix in TABLES:
        return "jsonl"
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix == ".txt":
        return "conll" if _is_conll(paths[0]) else "lines"
    raise InputError(f"{paths[0]} is of a kind that is not known ({suffix or 'no ending'}); expected {', '.join(sorted({*TABLES, *FORMATS, '.txt'}))}")


def _is_conll(path: Path) -> bool:
    try:
        read_rows(path, "conll")
    except DataRefused:
        return False
    return True


def _rows(path: Path, kind: Format) -> list[dict[str, Any]]:
    """Rows as keys and values; what the format tells apart itself stands under ``words`` and ``labels``."""
    if kind in ("conll", "lines"):
        reading = read_rows(path, kind, strict=False)
        return [{"words": " ".join(row.words), "labels": list(row.labels)} for row in reading.rows[:LOOKED_AT]]
    if path.suffix.lower() in TABLES:
        return read_table(path)[:LOOKED_AT]
    rows = []
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", errors="replace").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataRefused(f"not JSON: {error} ({path}:{number})") from None
            if not isinstance(row, dict):
                raise DataRefused(f"expected a JSON object on each line, got {line[:60]!r} ({path}:{number})")
            rows.append(row)
    return rows[:LOOKED_AT]


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or TSV file as RFC 4180 has them. Raises ``DataRefused`` by file and line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=TABLES[path.suffix.lower()], strict=True)
            header = next(reader, [])
            if len(set(header)) < len(header) or not all(header):
                raise DataRefused(f"the header should name each column once, got {header} ({path}:1)")
            rows = []
            for values in reader:
                if values and len(values) != len(header):
                    raise DataRefused(f"expected {len(header)} columns, got {len(values)} ({path}:{reader.line_num})")
                rows.append(dict(zip(header, values, strict=True))) if values else None
            return rows
    except UnicodeDecodeError as error:
        raise DataRefused(f"{path} is not UTF-8 text (byte {error.start}); convert it first, with iconv for example") from None
    except csv.Error as error:
        raise DataRefused(f"{error} ({path}:{reader.line_num})") from None


def _texts_and_labels(rows: Sequence[dict[str, Any]], columns: Columns | None) -> tuple[list[str], list[str]]:
    if columns is not None:
        texts = [str(row.get(columns.text, "")) for row in rows]
        counts = Counter(str(row.get(columns.label, "")) for row in rows)
    else:
        texts = [row["words"] for row in rows]
        counts = Counter(label for row in rows for label in row["labels"])
    if not any(text.strip() for text in texts):
        raise InputError("the data holds no text at all")
    return texts, [label for label, _ in counts.most_common()]


def _benchmark_of(kind: Format, asked: str | None, data: Path) -> BenchmarkName:
    shown: BenchmarkName = {"conll": "token-classification", "lines": "language-modelling"}.get(kind, "text-classification")  # type: ignore[assignment]
    if asked is not None and asked != shown:
        raise InputError(f"{data} looks like data for {shown} (it was read as {kind}), and --benchmark says {asked}; give other data or leave --benchmark out")
    return shown


def scripts_of(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The scripts of the letters and their shares, by how often they occur; what is rarer than 1 in 200 is left out."""
    letters = Counter(character for text in texts for character in text if character.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "unknown").split()[0].capitalize()] += count
    total = sum(scripts.values())
    return tuple((name, count / total) for name, count in scripts.most_common() if count >= total / 200)
