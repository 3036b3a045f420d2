"""Tables in binary: Parquet, and the Arrow files of a ``datasets`` folder (``save_to_disk``). Rows are numbered from 1.

The datasets library writes what the numbers of a column mean (``ClassLabel``) into the schema of both, and beside Arrow files into ``dataset_info.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.data.excerpt import cut
from recompress.data.formats.reading import Reading, bytes_of
from recompress.data.formats.records import Unreadable, add_record
from recompress.data.layout import Layout
from recompress.data.questions import QUESTIONS
from recompress.errors import DataRefused

if TYPE_CHECKING:
    import pyarrow as pa

_NO_VALUE = (ValueError, OverflowError, KeyError, NotImplementedError)
"""What Arrow raises for a value that Python has none for; its own errors are of these too."""
SIDE_FILES = ("dataset_dict.json", "dataset_info.json", "state.json")
"""What stands beside the Arrow files of a datasets folder."""


def read_table(reading: Reading, layout: Layout) -> None:
    """Raises ``DataRefused`` for a file that is no such table, or lacks a column."""
    schema, batches = open_table(reading.path, layout.format)
    wanted = layout.columns
    for column in wanted:
        if column not in schema.names and column.split(".")[0] not in schema.names:
            raise DataRefused(f"expected a column {column!r}, got {cut(', '.join(schema.names))} ({reading.path}:1)")
    wanted = (*wanted, *(QUESTIONS if layout.finds_spans else ()))
    keep = [name for name in schema.names if any(name in (column, column.split(".")[0]) for column in wanted)]
    check_names(reading.path, keep)
    names, number = class_names(reading.path, schema), 0
    for batch in batches:
        for record in records_of(batch.select(keep)):
            number += 1
            if lost := next((f"{name!r} cannot be read: {value}" for name, value in record.items() if isinstance(value, Unreadable)), ""):
                reading.report("malformed_lines", number, lost)
            else:
                add_record(reading, layout, number, record, names)


def check_names(path: Path, names: Sequence[str]) -> None:
    """Raises ``DataRefused`` for two columns of one name: nobody knows which was meant."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataRefused(f"two columns are called {twice!r}; rename one ({path}:1)")


def records_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows; bytes that are text are text, as Spark and Impala write it. A value that is none that Python knows (bytes of another encoding, a time after the
    year 9999) is an ``Unreadable`` that says why."""
    if not any("binary" in str(kind) for kind in batch.schema.types):
        try:
            yield from batch.to_pylist()
            return
        except _NO_VALUE:
            pass
    columns = {name: [_value(one) for one in column] for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _value(scalar: pa.Scalar[Any]) -> Any:
    try:
        return _text(scalar.as_py())
    except _NO_VALUE as error:
        return Unreadable(str(error).splitlines()[0])


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return [_text(one) for one in value] if isinstance(value, list) else value


def open_table(path: Path, kind: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and rows, batch by batch. Raises ``DataRefused``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = pa.py_buffer(bytes_of(path))
    try:
        if kind == "parquet":
            file = pq.ParquetFile(data)
            return file.schema_arrow, _reading_on(path, kind, file.iter_batches())
        _check_whole(path.parent)
        stream = pa.ipc.open_file(data) if data.slice(0, 6).to_pybytes() == b"ARROW1" else pa.ipc.open_stream(data)
        batches = (stream.get_batch(i) for i in range(stream.num_record_batches)) if isinstance(stream, pa.RecordBatchFileReader) else stream
        return stream.schema, _reading_on(path, kind, batches)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(path, kind, error) from None


def _reading_on(path: Path, kind: str, batches: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, kind, error) from None


def _broken(path: Path, kind: str, error: Exception) -> DataRefused:
    what = "Parquet" if kind == "parquet" else "an Arrow file of the datasets library"
    return DataRefused(f"{path} cannot be read as {what}: {str(error).splitlines()[0]}")


def _check_whole(folder: Path) -> None:
    """Raises ``DataRefused`` when a file is missing that ``state.json`` lists: a copy that stopped half way is no smaller data set."""
    for name in _listed(folder):
        if not (folder / name).is_file():
            raise DataRefused(f"{folder / name} is missing, but {folder / 'state.json'} lists it; copy the folder again")


def _listed(folder: Path) -> list[str]:
    """The Arrow files that ``state.json`` names."""
    listed = _document(folder / "state.json").get("_data_files") or []
    return [str(file["filename"]) for file in listed if isinstance(file, dict) and file.get("filename")]


def saved_files(files: Mapping[str, Path]) -> dict[str, Path]:
    """Of the files below a folder that ``save_to_disk`` wrote, those that belong to it: caches of ``map`` and ``filter`` lie beside them and are no data.

    Raises ``DataRefused`` for a split or a file that the folder's own lists name and that is not there.
    """
    for path in files.values():
        if path.name == "dataset_dict.json":
            for split in _document(path).get("splits") or []:
                if not _listed(path.parent / str(split)):
                    raise DataRefused(f"{path.parent / str(split)} is missing or empty, but {path} lists it; copy the folder again")
    folders = {path.parent: _listed(path.parent) for path in files.values() if path.name == "state.json"}
    for folder in folders:
        _check_whole(folder)
    return {name: path for name, path in files.items() if path.suffix != ".arrow" or path.parent not in folders or path.name in folders[path.parent]}


def class_names(path: Path, schema: pa.Schema) -> dict[str, list[str]]:
    """What the numbers of each column mean, as far as the datasets library wrote it down."""
    stored = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(stored)["info"]["features"] if stored else _document(path.parent / "dataset_info.json").get("features")
    except (ValueError, KeyError, TypeError):
        features = None
    columns = {name: _names(feature) for name, feature in (features or {}).items()} if isinstance(features, dict | None) else {}
    return {name: names for name, names in columns.items() if names}


def _names(feature: Any) -> list[str]:
    """The names of a ``ClassLabel``, alone or inside of a list (``Sequence``, ``List``)."""
    if isinstance(feature, list) and feature:
        return _names(feature[0])
    if not isinstance(feature, Mapping):
        return []
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or ()]
    return _names(feature.get("feature"))


def _document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataRefused(f"{path} is not JSON: {error}") from None
    return document if isinstance(document, dict) else {}
