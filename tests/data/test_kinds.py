"""Pairs, several labels and numbers as people have them: read, refused by line, recognised where nothing else is meant, split evenly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recompress.benchmarks import Example
from recompress.data.formats.readers import read_rows
from recompress.data.infer.looking import look_at
from recompress.data.labels import kinds_of, settled
from recompress.data.observe import observe_balance
from recompress.data.prepare import prepare, write
from recompress.data.sources import RawPart, SourceSettings
from recompress.data.splits import labels_of, read_split
from recompress.errors import DataRefused

PAIR, SEVERAL, NUMBER = "pair-classification", "multi-label-classification", "text-regression"
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_from_columns_and_keys(tmp_path: Path) -> None:
    table = csv(tmp_path, 'premise,hypothesis,label\n"it rains, hard",it is wet,yes\n')
    [row] = read_rows(table, "csv", benchmark=PAIR, text="premise", text_pair="hypothesis").rows
    assert (row.words, row.labels) == (("it rains, hard", "it is wet"), ("yes",))
    [row] = read_rows(jsonl(tmp_path, {"text": "a b", "text_pair": "c", "label": 1}), "jsonl", benchmark=PAIR).rows
    assert (row.words, row.labels) == (("a b", "c"), ("1",))
    with pytest.raises(DataRefused, match=r"expected a header with a column 'text_pair', got .*rows.csv:1"):
        read_rows(csv(tmp_path, "text,label\na,b\n"), "csv", benchmark=PAIR)
    with pytest.raises(DataRefused, match=r"one of the two texts is empty, only its label 'no' is there .*rows.csv:3"):
        read_rows(csv(tmp_path, "text,text_pair,label\na,b,yes\nc, ,no\n"), "csv", benchmark=PAIR)
    with pytest.raises(DataRefused, match=r"the strings 'text', 'text_pair' and 'label'"):
        read_rows(jsonl(tmp_path, {"text": "a", "label": "yes"}), "jsonl", benchmark=PAIR)


def test_several_labels_from_lists_fields_and_columns(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": ["y", "x", "y"]}, {"text": "b", "label": []}, {"text": "c", "label": "x"}]
    expected = [("x", "y"), ("",), ("x",)]
    assert [row.labels for row in read_rows(jsonl(tmp_path, *rows), "jsonl", benchmark=SEVERAL).rows] == expected
    table = csv(tmp_path, "text,label\na,y; x;y\nb,\nc,x\n")
    assert [row.labels for row in read_rows(table, "csv", benchmark=SEVERAL, separator=";").rows] == expected
    lists = csv(tmp_path, 'text,label\na,"[""y"", ""x""]"\nb,[]\nc,"[""x""]"\n')
    assert [row.labels for row in read_rows(lists, "csv", benchmark=SEVERAL).rows] == expected
    columns = csv(tmp_path, "text,x,y\na,1,true\nb,0,\nc,yes,FALSE\n")
    assert [row.labels for row in read_rows(columns, "csv", benchmark=SEVERAL, label_columns=("x", "y")).rows] == expected
    numbers = jsonl(tmp_path, {"text": "a", "label": [1, 0]}, {"text": "b", "label": []}, {"text": "c", "label": [0]})
    assert [row.labels for row in read_rows(numbers, "jsonl", benchmark=SEVERAL, names=("x", "y")).rows] == expected


@pytest.mark.parametrize(
    "row, message",
    [
        ({"text": "a"}, "expected a list of labels under 'label', empty where none holds"),
        ({"text": "a", "label": None}, "expected a list of labels under 'label'"),
        ({"text": "a", "label": ["x", ""]}, "a label is empty or missing"),
        ({"text": "a", "label": {"x": 1}}, "expected a list of labels"),
        ({"text": " ", "label": ["x"]}, "the text is empty, only its label 'x' is there"),
    ],
)
def test_what_says_nothing_about_labels_is_refused_by_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=f"{message}.*rows.jsonl:2"):
        read_rows(jsonl(tmp_path, {"text": "ok", "label": []}, row), "jsonl", benchmark=SEVERAL)


def test_a_column_that_says_neither_yes_nor_no_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"'y' says whether its label holds, with 1 or 0, true or false; got 'maybe' .*rows.csv:3"):
        read_rows(csv(tmp_path, "text,x,y\na,1,0\nb,0,maybe\n"), "csv", benchmark=SEVERAL, label_columns=("x", "y"))


def test_numbers_have_one_form_each(tmp_path: Path) -> None:
    rows = jsonl(tmp_path, *({"text": "a", "label": value} for value in (3, 3.0, "3.00", -0.5, "1e2")))
    assert [row.labels for row in read_rows(rows, "jsonl", benchmark=NUMBER).rows] == [("3",), ("3",), ("3",), ("-0.5",), ("100",)]
    for wrong, hint in (("many", ""), ("3,5", "; a comma is no decimal point"), ("nan", ""), ("inf", "")):
        with pytest.raises(DataRefused, match=f"a number is expected, got '{wrong}'{hint}.*rows.jsonl:1"):
            read_rows(jsonl(tmp_path, {"text": "a", "label": wrong}), "jsonl", benchmark=NUMBER)


def test_an_empty_label_of_one_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="the label is empty"):
        read_rows(csv(tmp_path, "text,label\na,\n"), "csv")


def texts(count: int) -> list[str]:
    return [f"{WORDS[i % 12]} {WORDS[i // 12 % 12]} said something of length number {i}" for i in range(count)]


def test_pairs_are_recognised_by_their_names(tmp_path: Path) -> None:
    rows = [{"premise": text, "hypothesis": text[::-1], "gold": "x", "label": ("yes", "no", "maybe")[i % 3]} for i, text in enumerate(texts(60))]
    understood = look_at(jsonl(tmp_path, *rows))
    assert understood.benchmark == PAIR
    assert {key: understood.entry[key] for key in ("text", "text_pair", "label")} == {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    assert understood.labels == {"yes": 20, "no": 20, "maybe": 20}
    other = [{"one": row["premise"], "other": row["hypothesis"], "label": row["label"]} for row in rows]
    assert look_at(jsonl(tmp_path, *other)).benchmark == "text-classification", "two columns of text alone are no pair"
    asked = look_at(jsonl(tmp_path, *other), benchmark=PAIR)
    assert (asked.entry["text"], asked.entry["text_pair"]) == ("one", "other")


def test_several_labels_are_recognised(tmp_path: Path) -> None:
    lists = [{"text": text, "labels": ["x"] * (i % 2) + ["y"] * (i % 3 == 0)} for i, text in enumerate(texts(60))]
    assert look_at(jsonl(tmp_path, *lists)).benchmark == SEVERAL
    assert look_at(jsonl(tmp_path, *lists)).labels == {"x": 30, "y": 20}
    flags = [{"id": i, "comment": text, "toxic": i % 2, "insult": int(i % 3 == 0)} for i, text in enumerate(texts(60))]
    understood = look_at(jsonl(tmp_path, *flags))
    assert (understood.benchmark, understood.entry["label_columns"]) == (SEVERAL, ["toxic", "insult"])
    assert any("label: names one of them" in note for note in understood.notes)
    table = csv(tmp_path, "text,tags\n" + "".join(f"{text},{';'.join(['x'] * (i % 2) + ['y'] * (i % 3 == 0))}\n" for i, text in enumerate(texts(60))))
    assert look_at(table).benchmark != SEVERAL, "text with something between is one label, unless somebody says otherwise"
    asked = look_at(table, benchmark=SEVERAL)
    assert (asked.entry["label"], asked.entry["separator"], asked.labels) == ("tags", ";", {"x": 30, "y": 20})
    with pytest.raises(DataRefused, match="no column holds lists of labels"):
        look_at(jsonl(tmp_path, *({"text": text, "n": 1} for text in texts(20))), benchmark=SEVERAL)


def test_numbers_are_recognised_where_they_are_no_classes(tmp_path: Path) -> None:
    fractions = [{"text": text, "score": i / 7} for i, text in enumerate(texts(60))]
    understood = look_at(jsonl(tmp_path, *fractions))
    assert (understood.benchmark, understood.entry["label"], understood.labels) == (NUMBER, "score", {})
    assert any("the numbers lie between 0 and 8.42857" in note for note in understood.notes)
    whole = [{"text": text, "label": i % 5} for i, text in enumerate(texts(60))]
    assert look_at(jsonl(tmp_path, *whole)).benchmark == "text-classification"
    assert look_at(jsonl(tmp_path, *whole), benchmark=NUMBER).benchmark == NUMBER
    with pytest.raises(DataRefused, match="no column holds a number for each text"):
        look_at(jsonl(tmp_path, *({"text": text, "label": "x"} for text in texts(20))), benchmark=NUMBER)


def test_words_with_tags_are_no_labels_of_a_text(tmp_path: Path) -> None:
    rows = [{"text": text, "tokens": text.split(), "ner_tags": ["B-X", *["O"] * (len(text.split()) - 1)]} for text in texts(30)]
    assert look_at(jsonl(tmp_path, *rows)).benchmark == "token-classification"


def parts_of(benchmark: str, labels: list[tuple[str, ...]]) -> tuple[list[RawPart], SourceSettings]:
    words = [(text, text[::-1]) if benchmark == PAIR else (text,) for text in texts(len(labels))]
    part = RawPart("train", "all", [Example(*pair) for pair in zip(words, labels, strict=True)])
    part.places = [(Path("x"), i) for i in range(len(labels))]
    split_off = {"test": {"share": 0.2}, "dev": {"share": 0.1}}
    entry = {"benchmark": benchmark, "format": "jsonl", "source": "raw/x", "files": "x.jsonl", "split_off": split_off}
    return [part], SourceSettings.model_validate(entry)


@pytest.mark.parametrize(
    "benchmark, labels, names",
    [
        (PAIR, [(("yes", "no")[i % 2],) for i in range(200)], ("no", "yes")),
        (SEVERAL, [settled(["x"] * (i % 2) + ["y"] * (i % 10 == 0), "labels") for i in range(200)], ("x", "y")),
        (NUMBER, [(f"{(i * 37) % 200 / 4:g}",) for i in range(200)], ("value",)),
    ],
)
def test_preparation_splits_evenly_and_keeps_what_rows_say(benchmark: str, labels: list[tuple[str, ...]], names: tuple[str, ...], tmp_path: Path) -> None:
    parts, settings = parts_of(benchmark, labels)
    splits, counts = prepare(parts, settings)
    write(splits, counts, settings, tmp_path)
    assert labels_of(tmp_path) == names
    assert {split: len(rows["all"]) for split, rows in splits.items()} == pytest.approx({"train": 144, "dev": 16, "test": 40}, abs=6)
    assert read_split(tmp_path, "test") == splits["test"]["all"]
    every = [row for split in splits.values() for row in split["all"]]
    assert sorted(row.labels for row in every) == sorted(labels)
    prepared = [RawPart(split, "all", rows["all"]) for split, rows in splits.items()]
    [balance] = observe_balance(prepared, settings).to_dict("records")
    assert balance["label_balance"] < 0.15
    assert balance["labels_train_lacks"] == 0


def test_a_split_takes_its_share_of_rare_labels_and_of_all_heights() -> None:
    rows = [Example((str(i),), settled(["often"] + ["rare"] * (i % 20 == 0), "labels")) for i in range(100)]
    assert {kind for row, kind in zip(rows, kinds_of(rows, "labels"), strict=True) if "rare" in row.labels} == {("rare",)}
    numbers = [Example((str(i),), (str(i // 2),)) for i in range(100)]
    kinds = kinds_of(numbers, "number")
    assert len(set(kinds)) == 10
    assert all(kinds[i] == kinds[i + 1] for i in range(0, 100, 2)), "equal numbers are of one kind"
