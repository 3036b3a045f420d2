from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recompress.benchmarks import Example
from recompress.data.prepare import write
from recompress.data.sources import SourceSettings
from recompress.data.splits import labels_of, preparation, read_split
from recompress.errors import DataRefused
from recompress.records import Split

SETTINGS = SourceSettings(benchmark="token-classification", format="conll", source="raw", files="{split}.txt", labels=("O", "B-X", "I-X", "B-Y"))
ROWS: dict[Split, list[Example]] = {
    "train": [Example(("leo", "na"), ("O", "B-X"), "east"), Example(("jana",), ("B-Y",), "west")],
    "test": [Example(("kesho",), ("B-X",), "east"), Example(("tena",), ("B-Y",), "west")],
}


def put(folder: Path, rows: dict[Split, list[Example]]) -> Path:
    splits = {split: {name: [row for row in examples if row.slice == name] for name in {row.slice for row in examples}} for split, examples in rows.items()}
    write(splits, {}, SETTINGS, folder)
    return folder


def test_rows_come_back_as_they_were_and_by_slice(tmp_path: Path) -> None:
    put(tmp_path, ROWS)
    assert read_split(tmp_path, "train") == ROWS["train"]
    assert read_split(tmp_path, "test", ("west",)) == ROWS["test"][1:]
    assert read_split(tmp_path, "train", ("west", "east")) == ROWS["train"]


def test_missing_files_unknown_slices_and_empty_splits_are_refused(tmp_path: Path) -> None:
    put(tmp_path, ROWS)
    with pytest.raises(DataRefused, match=r"dev\.parquet is missing"):
        read_split(tmp_path, "dev")
    with pytest.raises(DataRefused, match=r"unknown slice 'wets'.*did you mean 'west'"):
        read_split(tmp_path, "train", ("east", "wets"))
    put(tmp_path, {"dev": []})
    with pytest.raises(DataRefused, match="holds no examples"):
        read_split(tmp_path, "dev")


def test_other_bytes_and_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataRefused, match="cannot be read as Parquet"):
        read_split(tmp_path, "train")
    pq.write_table(pa.table({"words": ["leo"], "labels": [["O"]], "slice": ["x"]}), tmp_path / "train.parquet")
    with pytest.raises(DataRefused, match="should have the columns"):
        read_split(tmp_path, "train")
    pq.write_table(pa.table({"words": [["leo"]], "labels": [["O"]]}), tmp_path / "train.parquet")
    with pytest.raises(DataRefused, match="should have the columns"):
        read_split(tmp_path, "train")
    whole = put(tmp_path, ROWS) / "train.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataRefused):
        read_split(tmp_path, "train")


def test_labels_come_from_train_in_their_order_and_test_may_not_have_others(tmp_path: Path) -> None:
    put(tmp_path, ROWS)
    assert labels_of(tmp_path) == ("O", "B-X", "B-Y")
    assert labels_of(tmp_path, ("west",)) == ("B-Y",)
    put(tmp_path, {**ROWS, "test": [Example(("simba",), ("I-X",), "east")]})
    with pytest.raises(DataRefused, match="test has labels that train lacks: I-X"):
        labels_of(tmp_path)


def test_preparation_json_is_needed_and_whole(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="is missing"):
        preparation(tmp_path)
    for text in ("{", "[]", json.dumps({"labels": []})):
        (tmp_path / "preparation.json").write_text(text)
        with pytest.raises(DataRefused):
            preparation(tmp_path)
