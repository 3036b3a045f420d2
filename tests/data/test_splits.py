from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recompress.benchmarks import Example
from recompress.data.prepare import write
from recompress.data.sources import SourceSettings
from recompress.data.splits import draw, draw_of_each, labels_of, preparation, read_split
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


def test_examples_are_drawn_by_seed_kept_in_order_and_added_to() -> None:
    every = [Example((f"word {i}",), (), "east" if i % 4 else "west") for i in range(40)]
    few, more = draw(every, 10, seed=3), draw(every, 25, seed=3)
    assert (len(few), len(more)) == (10, 25)
    assert few == [example for example in every if example in few]
    assert set(few) < set(more)
    assert few == draw(every, 10, seed=3) != draw(every, 10, seed=4)
    assert few != every[:10]
    assert draw(every, 99, seed=3) == every


def test_each_slice_gets_its_number() -> None:
    every = [Example((f"word {i}",), (), "east" if i % 4 else "west") for i in range(40)]
    drawn = draw_of_each(every, 8, seed=3)
    assert drawn == [example for example in every if example in drawn]
    assert [sum(example.slice == name for example in drawn) for name in ("east", "west")] == [8, 8]
    assert drawn != draw_of_each(every, 8, seed=4)


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
