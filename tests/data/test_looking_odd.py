"""What tools write that is not the table itself, and values that Python has no form for: read, or told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recompress.data.formats.readers import read_rows
from recompress.data.infer.explain import explain
from recompress.data.infer.looking import look_at
from recompress.errors import DataRefused

COUNT = 60
TEXTS = [f"text number {i} of a king" for i in range(COUNT)]
LABELS = ["ab"[i % 2] for i in range(COUNT)]


@pytest.mark.parametrize(("first", "between"), [("sep=;", ";"), ('"sep=;"', ";"), ("SEP=,", ","), ("sep=\t", "\t")])
def test_the_first_line_of_excel_names_the_delimiter_and_is_no_row(first: str, between: str, tmp_path: Path) -> None:
    rows = "".join(f"{text}{between}{label}\r\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (tmp_path / "a.csv").write_bytes(f"\ufeff{first}\r\ntext{between}label\r\n{rows}".encode())
    understood = look_at(tmp_path / "a.csv")
    assert (understood.columns, understood.labels, understood.entry.get("delimiter", ",")) == (("text", "label"), {"a": 30, "b": 30}, between)
    assert [row.line for row in understood.first] == [3, 4]


ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


@pytest.mark.parametrize(
    "document",
    [
        {str(i): row for i, row in enumerate(ROWS)},
        {f"row-{i}": row for i, row in enumerate(ROWS)},
        {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ("text", "label")},
        {"columns": ["text", "label"], "index": [*range(COUNT)], "data": [[*row.values()] for row in ROWS]},
    ],
    ids=["index", "index-of-names", "columns", "split"],
)
def test_rows_and_columns_of_pandas_are_the_same_rows(document: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    understood = look_at(tmp_path / "a.json")
    assert (understood.columns, understood.rows, understood.labels) == (("text", "label"), {"train": COUNT}, {"a": 30, "b": 30})
    assert [row.words[0] for row in read_rows(tmp_path / "a.json", "json").rows] == TEXTS


def test_a_label_that_is_called_like_a_column_makes_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{text},{('question', 'claim')[i % 2]}\n" for i, text in enumerate(TEXTS)))
    understood = look_at(tmp_path / "a.csv")
    assert (understood.entry["header"], understood.benchmark, understood.labels) == (False, "text-classification", {"question": 30, "claim": 30})


@pytest.mark.parametrize(
    ("header", "label", "shown"),
    [("text,labels", '"[""B-cell"", ""T-cell""]"', "'B-cell', 'T-cell'"), ("text,labels", '"[""O""]"', "'O'"), ("text,label", "O", "'O'")],
)
def test_labels_that_look_like_tags_are_shown_as_labels(header: str, label: str, shown: str, tmp_path: Path) -> None:
    others = ['"[""I-beam"", ""girder""]"', '"[]"'] if header.endswith("s") else ["X"]
    (tmp_path / "a.csv").write_text(f"{header}\n" + "".join(f"{text},{[label, *others][i % (1 + len(others))]}\n" for i, text in enumerate(TEXTS)))
    assert f"{shown}  'text number 0 of a king'" in explain(look_at(tmp_path / "a.csv"))


def test_a_pair_with_the_label_o_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("premise,hypothesis,label\n" + "".join(f"{text},so {text},{'OX'[i % 2]}\n" for i, text in enumerate(TEXTS)))
    assert "'O'  'text number 0 of a king' | 'so text number 0 of a king'" in explain(look_at(tmp_path / "a.csv"))


def test_bytes_that_are_text_are_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([text.encode() for text in TEXTS], pa.binary()), "label": LABELS}), tmp_path / "a.parquet")
    understood = look_at(tmp_path / "a.parquet")
    assert (understood.entry["text"], understood.entry["label"], understood.first[0].words) == ("text", "label", (TEXTS[0],))


def latin(kind: pa.DataType) -> pa.Array[Any]:
    coded = pa.array([text.encode() if i != 7 else b"caf\xe9" for i, text in enumerate(TEXTS)], pa.binary())
    return coded if kind == pa.binary() else pa.Array.from_buffers(kind, COUNT, coded.buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_row_that_is_no_text_is_named(kind: pa.DataType, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": latin(kind), "label": LABELS}), tmp_path / "a.parquet")
    understood = look_at(tmp_path / "a.parquet")
    assert (understood.rows, len(understood.problems)) == ({"train": COUNT - 1}, 1)
    assert "'text' cannot be read: 'utf-8' codec can't decode byte 0xe9" in understood.problems[0]
    assert "a.parquet:8)" in understood.problems[0]


def test_a_column_that_nobody_reads_refuses_nothing(tmp_path: Path) -> None:
    table = pa.table({"text": TEXTS, "label": LABELS, "at": pa.array([2**55] * COUNT, pa.timestamp("us")), "old": latin(pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    understood = look_at(tmp_path / "a.parquet")
    assert (understood.rows, understood.columns) == ({"train": COUNT}, ("text", "label", "at", "old"))


def test_two_columns_of_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(TEXTS), pa.array(LABELS), pa.array(LABELS)], names=["text", "label", "label"]), tmp_path / "a.parquet")
    for read in (look_at, lambda path: read_rows(path, "parquet")):
        with pytest.raises(DataRefused, match=r"two columns are called 'label'; rename one .*a\.parquet:1"):
            read(tmp_path / "a.parquet")


def test_brackets_that_go_too_deep_are_text(tmp_path: Path) -> None:
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (tmp_path / "a.csv").write_text(f"text,label\n{rows}{'[' * 30_000},a\n")
    assert look_at(tmp_path / "a.csv").rows == {"train": COUNT + 1}


@pytest.mark.parametrize("end", [float("inf"), float("nan"), 1e400])
def test_a_span_that_never_ends_is_named(end: float, tmp_path: Path) -> None:
    rows = [{"text": text, "spans": [[0, end if i == 3 else 4, "PER"]]} for i, text in enumerate(TEXTS)]
    pq.write_table(
        pa.table({"text": TEXTS, "spans": [[{"start": 0.0, "end": float(row["spans"][0][1]), "label": "PER"}] for row in rows]}), tmp_path / "a.parquet"
    )
    understood = look_at(tmp_path / "a.parquet")
    assert understood.rows == {"train": COUNT - 1}
    assert "is no span; expected start and end as numbers of characters" in understood.problems[0]
