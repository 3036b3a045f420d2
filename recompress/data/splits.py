"""Read prepared splits back, whole or a part of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.benchmarks import Example
from recompress.data.labels import names_in
from recompress.errors import DataRefused
from recompress.models.heads import head_of
from recompress.records import Split
from recompress.settings.file import unknown

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("words", "labels", "slice")
GROUP = "group"
"""A column of its own, where the data names groups."""


def read_split(directory: Path, split: Split, slices: Sequence[str] | None = None) -> list[Example]:
    """The examples of one split in their order; only those of ``slices`` when given.

    Raises ``DataRefused``: the file is missing, is no Parquet file or has other columns, a slice is not known, or nothing is left.
    """
    table = read_table(directory, split)
    columns = [table.column(column).to_pylist() for column in COLUMNS]
    groups = table.column(GROUP).to_pylist() if GROUP in table.column_names else [""] * len(table)
    rows = (row for row in zip(*columns, groups, strict=True) if slices is None or row[2] in slices)
    examples = [Example(tuple(words), tuple(labels), name, group or "") for words, labels, name, group in rows]
    names = {example.slice for example in examples}
    for name in slices or ():
        if name not in names:
            known = set(table.column("slice").to_pylist())
            raise DataRefused(unknown("slice", name, known, str(directory / f"{split}.parquet")))
    if not examples:
        raise DataRefused(f"{directory / f'{split}.parquet'} holds no examples; a split may not be empty")
    return examples


def draw(examples: Sequence[Example], at_most: int, seed: int) -> list[Example]:
    """At most ``at_most`` examples, in their order. Which ones follows from the seed; those of a smaller number are among those of a larger one."""
    return [examples[i] for i in sorted(_lots(examples, seed)[:at_most])]


def draw_of_each(examples: Sequence[Example], at_most: int, seed: int) -> list[Example]:
    """At most ``at_most`` examples of each slice, in their order, drawn in the same way."""
    indices: list[int] = []
    lots = _lots(examples, seed)
    for name in {example.slice for example in examples}:
        indices.extend([i for i in lots if examples[i].slice == name][:at_most])
    return [examples[i] for i in sorted(indices)]


def _lots(examples: Sequence[Example], seed: int) -> list[int]:
    import numpy as np

    return [int(i) for i in np.random.default_rng(seed % 2**32).permutation(len(examples))]


def read_table(directory: Path, split: Split) -> pa.Table:
    """The Parquet file of one split, with the columns that it should have. Raises ``DataRefused``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / f"{split}.parquet"
    if not path.is_file():
        raise DataRefused(f"{path} is missing; `recompress data` says how to get it")
    try:
        with pq.ParquetFile(path) as file:  # pyarrow's read_table brings pandas
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    lists = (pa.list_(pa.string()), pa.list_(pa.string()), pa.string())
    expected = dict(zip(COLUMNS, lists, strict=True))
    columns = dict(zip(table.schema.names, table.schema.types, strict=True))
    if GROUP in columns:
        expected[GROUP] = pa.string()
    if columns.keys() != expected.keys() or any(not _alike(columns[name], expected[name]) for name in expected):
        raise DataRefused(
            f"{path} should have the columns words (list of strings), labels (list of strings), slice (string) and, where there are groups, group (string), got {columns}"
        )
    return table


def labels_of(directory: Path, slices: Sequence[str] | None = None) -> tuple[str, ...]:
    """The labels that training shows, in the order that ``preparation.json`` gives them; what the head's outputs are called, where these are no labels.

    Raises ``DataRefused`` when dev or test has a label that training never shows.
    """
    document = preparation(directory)
    if outputs := head_of(document["benchmark"]).outputs:
        return outputs
    shown = _labels(directory, "train", slices)
    for split in ("dev", "test"):
        if (directory / f"{split}.parquet").is_file():
            strange = sorted(_labels(directory, split, slices) - shown)
            if strange:
                raise DataRefused(f"{split} has labels that train lacks: {', '.join(strange)} ({directory}); choose other slices or correct the data")
    order = document["labels"]
    return tuple(sorted(shown, key=lambda label: (order.index(label) if label in order else len(order), label)))


def preparation(directory: Path) -> dict[str, Any]:
    """What ``preparation.json`` says: benchmark, labels, slices, rows, and what was counted. Raises ``DataRefused``."""
    path = directory / "preparation.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataRefused(f"{path} is missing; `recompress data` says how to get it") from None
    except ValueError as error:
        raise DataRefused(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or not {"benchmark", "labels", "slices", "rows", "counts"} <= document.keys():
        raise DataRefused(f"{path} should say benchmark, labels, slices, rows and counts")
    return document


def _labels(directory: Path, split: Split, slices: Sequence[str] | None) -> set[str]:
    table = read_table(directory, split)
    rows = zip(table.column("labels").to_pylist(), table.column("slice").to_pylist(), strict=True)  # and nothing of pyarrow's that brings pandas
    shown = {str(label) for labels, name in rows if slices is None or name in slices for label in labels}
    return names_in(shown, head_of(preparation(directory)["benchmark"]).answer)


def _alike(actual: Any, expected: Any) -> bool:
    """Equal but for the name that a writer gave to the list's members."""
    import pyarrow as pa

    return bool(actual == expected or (pa.types.is_list(actual) and pa.types.is_list(expected) and actual.value_type == expected.value_type))
