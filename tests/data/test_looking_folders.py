"""Which files of a folder are read as which split: nothing vanishes, and what was held out is not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recompress.data.infer.files import named_by
from recompress.data.infer.looking import look_at
from recompress.errors import DataRefused


def texts(path: Path, count: int = 40, called: str = "king", header: str = "text,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{header}\n" + "".join(f"{called} number {i},{'ab'[i % 2]}\n" for i in range(count)))
    return path


def test_a_split_that_is_a_link_to_a_folder_is_read(tmp_path: Path) -> None:
    texts(tmp_path / "elsewhere" / "part.csv", 60)
    texts(tmp_path / "data" / "test" / "part.csv", 20, "queen")
    (tmp_path / "data" / "train").symlink_to("../elsewhere")
    understood = look_at(tmp_path / "data")
    assert (understood.entry["files"], understood.rows) == ("{split}/part.csv", {"train": 60, "test": 20})


@pytest.mark.parametrize(
    ("target", "message"), [("../gone", "train is a link to ../gone, which is not there"), ("..", "train is a link to a folder that it lies in")]
)
def test_a_link_that_leads_to_no_data_is_refused_by_name(target: str, message: str, tmp_path: Path) -> None:
    texts(tmp_path / "data" / "test" / "part.csv")
    (tmp_path / "data" / "train").symlink_to(target)
    with pytest.raises(DataRefused, match=message):
        look_at(tmp_path / "data")


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("train.tsv", "train.tsv holds the train split, but dev.csv is of another format"),
        ("train/part.jsonl", "another format"),
        ("train.csv.gz", "unpack it first"),
        ("training.xlsx", "save the sheet as CSV first"),
    ],
)
def test_a_split_in_another_format_is_refused_and_not_left_out(beside: str, message: str, tmp_path: Path) -> None:
    texts(tmp_path / "test.csv")
    texts(tmp_path / "dev.csv")
    texts(tmp_path / beside)
    with pytest.raises(DataRefused, match=message):
        look_at(tmp_path)


def test_the_same_split_in_two_formats_is_read_once(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv", "train.txt"):
        texts(tmp_path / name)
    understood = look_at(tmp_path)
    assert (understood.entry["files"], understood.rows) == ("{split}.csv", {"train": 40, "test": 40})
    assert any("not taken for data: train.txt" in note for note in understood.notes)


def test_a_lone_test_split_is_not_trained_on_without_a_word(tmp_path: Path) -> None:
    file = texts(tmp_path / "data" / "test" / "part.csv")
    understood = look_at(tmp_path / "data")
    assert (understood.rows, "split_off" in understood.entry) == ({"test": 40}, False)
    assert any("no rows to train on, only test" in note for note in understood.notes)
    assert look_at(tmp_path / "data", rename={"test": "train"}).rows == {"train": 40}
    understood = look_at(file.rename(tmp_path / "test.csv"))
    assert understood.rows == {"train": 40}, "somebody gave this very file"
    assert any("its name says test" in note for note in understood.notes)


def test_words_that_are_said_to_name_splits_do(tmp_path: Path) -> None:
    texts(tmp_path / "part1.csv", 60)
    texts(tmp_path / "part2.csv", 20, "queen")
    understood = look_at(tmp_path, rename={"part1": "train", "part2": "test"})
    assert (understood.entry["files"], understood.rows) == ("{split}.csv", {"train": 60, "test": 20})


SPARK = "1b4e28ba-2fa1-11d2-883f-0016d3cca427-c000.snappy.parquet"


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["train-00000-of-00001-aa11bb22cc33dd44.parquet", "test-00000-of-00001-ee55ff66aa77bb88.parquet"], "{split}-*.parquet"),
        ([f"part-0000{i}-{SPARK}" for i in range(3)], "part-*.snappy.parquet"),
        ([f"{split}/part-0000{i}-{SPARK}" for split in ("train", "test") for i in range(2)], "{split}/part-*.snappy.parquet"),
        (["train_0.csv", "train_1.csv", "test_0.csv"], "{split}_*.csv"),
        (["a1b2c3d4e5.csv", "0f1e2d3c4b.csv"], "*.csv"),
        (["year_2019.csv", "year_2020.csv"], "year_{slice}.csv"),
        (["deadbeef.csv", "en.csv"], "{slice}.csv"),
    ],
)
def test_parts_of_a_table_are_no_slices(names: list[str], pattern: str) -> None:
    assert named_by(names).pattern == pattern


def hub(path: Path, labels: list[int]) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}, "text": {"_type": "Value", "dtype": "string"}}
    table = pa.table({"text": [f"{path.stem} king {i}" for i in range(len(labels))], "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)


def test_a_test_split_without_labels_is_left_out_and_said(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 1] * 40), ("validation", [0, 1] * 10), ("test", [-1] * 20)):
        hub(tmp_path / f"{split}-00000-of-00001.parquet", labels)
    understood = look_at(tmp_path)
    assert (understood.benchmark, understood.rows, understood.problems) == ("text-classification", {"train": 80, "dev": 20}, ())
    assert (understood.labels, understood.entry["split_off"]) == ({"no": 50, "yes": 50}, {"test": {"share": 0.2}})
    assert "test-00000-of-00001.parquet" not in understood.files
    assert any("left out, because it has no labels: test-00000-of-00001.parquet" in note for note in understood.notes)


@pytest.mark.parametrize("dials", [{}, {"label": "target"}])
def test_so_is_one_whose_table_has_no_such_column(dials: dict[str, Any], tmp_path: Path) -> None:
    texts(tmp_path / "train.csv", header="text,target")
    (tmp_path / "test.csv").write_text("text\n" + "".join(f"a text {i}\n" for i in range(20)))
    understood = look_at(tmp_path, **dials)
    assert (understood.entry["label"], understood.entry["files"], understood.rows) == ("target", "train.csv", {"train": 40})


@pytest.mark.parametrize("kind", ["conll", "jsonl"])
def test_the_scheme_of_tags_is_that_of_all_files(kind: str, tmp_path: Path) -> None:
    for split, touching in (("dev", "I-PER"), ("test", "I-PER"), ("train", "B-PER")):
        rows = [(["Ann", "Bob", "said", str(i)], ["I-PER", touching if i % 3 == 0 else "I-PER", "O", "O"]) for i in range(30)]
        written = {
            "conll": "".join("".join(f"{word} X {tag}\n" for word, tag in zip(*row, strict=True)) + "\n" for row in rows),
            "jsonl": "".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in rows),
        }
        (tmp_path / f"{split}.{kind}").write_text(written[kind])
    understood = look_at(tmp_path)
    assert (understood.entry["tags"], understood.problems, understood.rows) == ("iob1", (), {"train": 30, "dev": 30, "test": 30})


@pytest.mark.parametrize(
    ("row", "dials", "message"),
    [
        (
            {"text": "Ashaking", "label": [[2, 4, "PER"]]},
            {"benchmark": "token-classification", "tags": "spans"},
            r"the span 2 to 4 \(PER\) begins or ends inside the word 'Ashaking'.*a\.jsonl:1\)",
        ),
        ({"text": "a text", "label": 3}, {"benchmark": "text-classification", "names": ("no", "yes")}, r"'3' is none of the 2 names.*a\.jsonl:1\)"),
        ({"text": "a text", "label": "0,5"}, {"benchmark": "text-regression"}, r"a number is expected, got '0,5'.*a\.jsonl:1\)"),
    ],
)
def test_where_no_row_can_be_read_the_reason_is_said_with_file_and_line(row: dict[str, Any], dials: dict[str, Any], message: str, tmp_path: Path) -> None:
    from recompress.data.formats.readers import read_rows

    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 9)
    with pytest.raises(DataRefused, match=f"none of the rows can be read: {message}, and so are 8 more; correct the file"):
        read_rows(tmp_path / "a.jsonl", "jsonl", strict=False, text="text", label="label", **dials)
