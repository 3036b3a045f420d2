"""What looking at a file or folder says of it, and the entry that it gives."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from recompress.data.infer.explain import as_json, as_settings, as_yaml, explain
from recompress.data.infer.files import named_by
from recompress.data.infer.looking import look_at
from recompress.data.sources import SourceSettings
from recompress.errors import DataRefused, InputError
from recompress.settings.file import SettingsFile

TOPICS = {"water": "maji ya {} leo", "food": "chakula cha {} kesho", "road": "barabara ya {} jana"}


def tickets(folder: Path, name: str = "tickets.csv", count: int = 60) -> Path:
    rows = [f'{i},"{list(TOPICS.values())[i % 3].format(i)}, привет",{list(TOPICS)[i % 3]}\n' for i in range(count)]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("id,body,topic\n" + "".join(rows))
    return folder / name


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_one_file_is_understood_whole(tmp_path: Path) -> None:
    understood = look_at(tickets(tmp_path / "in"))
    assert understood.entry == {
        "benchmark": "text-classification",
        "format": "csv",
        "source": "raw/tickets",
        "files": "tickets.csv",
        "text": "body",
        "label": "topic",
        "split_off": {"test": {"share": 0.2}, "dev": {"share": 0.1}},
    }
    assert (understood.columns, understood.rows) == (("id", "body", "topic"), {"train": 60})
    assert understood.labels == {"water": 20, "food": 20, "road": 20}
    assert list(understood.scripts) == ["Latin", "Cyrillic"]
    assert sum(understood.scripts.values()) == pytest.approx(1, abs=1e-3)
    assert understood.lengths == {"median": 6, "p90": 6, "p99": 6, "longest": 6}
    assert [(row.line, row.labels) for row in understood.first] == [(2, ("water",)), (3, ("food",))]
    assert understood.files == {"tickets.csv": tmp_path / "in" / "tickets.csv"}
    assert any("60 rows are few" in note for note in understood.notes)


def test_the_entry_is_read_back_from_yaml_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("no;yes\n" + "".join(f"text {i};{('1', 'null', 'NA')[i % 3]}\n" for i in range(60)))
    understood = look_at(tmp_path / "a.csv", text="no", label="yes", labels=["1", "null", "NA"])
    (tmp_path / "params.yaml").write_text("datasets:\n  x:\n" + "".join(f"    {line}\n" for line in as_settings(understood)))
    read = SettingsFile(tmp_path / "params.yaml").read_as(SourceSettings, ("datasets", "x"))
    assert read == SourceSettings.model_validate_json(json.dumps(understood.entry))
    assert (read.text, read.labels, read.delimiter) == ("no", ("1", "null", "NA"), ";")
    for word in ("yes", "null", "1", "on", "~", "a: b", "# no", "-x", "{split}.txt", "é", "1e3", "0x1f", "2026-11-29", "=", "<<"):
        assert yaml.safe_load(as_yaml({word: [word]})) == {word: [word]}


def test_what_a_person_reads(tmp_path: Path) -> None:
    text = explain(look_at(tickets(tmp_path)))
    assert "text: body" in text
    assert "labels    water 20, food 20, road 20" in text
    assert "train, line 2: 'water'  'maji ya 0 leo, привет'" in text
    assert as_json(look_at(tmp_path / "tickets.csv"))["first"][0]["words"] == ("maji ya 0 leo, привет",)


@pytest.mark.parametrize(
    ("paths", "pattern", "rename"),
    [
        (["tickets.csv"], "tickets.csv", {}),
        (["train.csv"], "train.csv", {}),
        (["train.csv", "test.csv"], "{split}.csv", {}),
        (["hau/train.txt", "swa/test.txt", "swa/train.txt"], "{slice}/{split}.txt", {}),
        (["hau.txt", "swa.txt"], "{slice}.txt", {}),
        (["news-en-train.csv", "news-sw-train.csv", "news-sw-valid.csv"], "news-{slice}-{split}.csv", {"valid": "dev"}),
        (
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/validation-00000-of-00001.parquet"],
            "data/{split}-*.parquet",
            {"validation": "dev"},
        ),
        (["train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow", "dataset_dict.json"], "{split}/data-*.arrow", {}),
        (["data-00000-of-00001.arrow", "state.json"], "data-*.arrow", {}),
    ],
)
def test_paths_name_splits_and_slices(paths: list[str], pattern: str, rename: dict[str, str]) -> None:
    assert named_by(paths) == (pattern, rename)
    settings = SourceSettings.model_validate({"benchmark": "language-modelling", "format": "datasets", "source": "raw/x", "files": pattern})
    for path in paths:
        assert settings.pattern.fullmatch(path) or settings.ignores(path), path


def test_paths_that_follow_no_rule_are_refused() -> None:
    with pytest.raises(DataRefused, match=r"nobody can tell what the files are.*a/b/c\.csv"):
        named_by(["train.csv", "a/b/c.csv", "other.csv"])


def test_a_folder_with_other_things_in_it(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        tickets(tmp_path, name)
    for name in ("README.md", "LICENSE", ".gitattributes", "load.py", "notes.txt"):
        (tmp_path / name).write_text("text\n")
    understood = look_at(tmp_path, name="t")
    assert sorted(understood.files) == ["test.csv", "train.csv"]
    assert understood.entry["split_off"] == {"dev": {"share": 0.1}}
    assert any(note.startswith("not taken for data: ") and "notes.txt" in note for note in understood.notes)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.xlsx", "x", "save the sheet as CSV first"),
        ("a.csv.gz", "x", "unpack it first"),
        ("a.pkl", "x", "a pickle can run code"),
        ("a.csv", "  \n", "is empty"),
        ("a.jsonl", '{"n": 1}\n{"n": 2}\n', "no column is text; there are: n"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_understood_is_one_line_with_the_way_out(name: str, text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataRefused) as refused:
        look_at(tmp_path / name)
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_there_and_dials_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="is not there"):
        look_at(tmp_path / "nowhere.csv")
    with pytest.raises(DataRefused, match="holds no file of data"):
        look_at(tmp_path)
    with pytest.raises(InputError, match=r"unknown dial 'txt'.*did you mean 'text'"):
        look_at(tickets(tmp_path), txt="body")
    with pytest.raises(DataRefused, match=r"a column 'text'.*tickets\.csv:1"):
        look_at(tmp_path / "tickets.csv", text="text", label="topic")


def test_dials_that_are_given_are_not_inferred(tmp_path: Path) -> None:
    path = tickets(tmp_path)
    assert look_at(path, benchmark="language-modelling", text="topic").entry["benchmark"] == "language-modelling"
    assert look_at(path, text="id", label="topic").first[0].words == ("0",)
    assert look_at(path, name="mine").entry["source"] == "raw/mine"


@pytest.mark.parametrize(
    ("benchmark", "text", "label", "row"),
    [
        ("token-classification", "tokens", "ner_tags", (["Asha", "went"], ["B-PER", "O"])),
        ("token-classification", "text", "spans", ("Asha went", [{"start": 0, "end": 4, "label": "PER"}])),
        ("multi-label-classification", "text", "topics", ("Asha went", ["people", "travel"])),
    ],
)
def test_lists_in_fields_of_a_table_are_lists(benchmark: str, text: str, label: str, row: tuple[Any, Any], tmp_path: Path) -> None:
    """As a table has them that was written from lists: JSON in a field."""
    words = row[0] if isinstance(row[0], str) else json.dumps(row[0])
    write_table(tmp_path / "a.csv", [text, label], [[words + (f" {i}" if isinstance(row[0], str) else ""), json.dumps(row[1])] for i in range(40)])
    understood = look_at(tmp_path / "a.csv")
    assert (understood.benchmark, understood.entry["text"], understood.entry["label"]) == (benchmark, text, label)
    assert not understood.problems
    assert understood.rows == {"train": 40}


def test_a_second_text_under_any_name_is_told(tmp_path: Path) -> None:
    """Its values may come again, as paragraphs do with each of their questions."""
    rows = [[f"text number {i}", f"a longer text about thing number {i // 4}", "ab"[i % 2]] for i in range(80)]
    write_table(tmp_path / "a.csv", ["text", "remark", "label"], rows)
    understood = look_at(tmp_path / "a.csv")
    assert understood.entry["benchmark"] == "text-classification"
    assert any("'remark' could be the text too" in note and "text_pair" in note for note in understood.notes)
    write_table(tmp_path / "b.csv", ["question", "paragraph", "label"], rows)
    assert look_at(tmp_path / "b.csv").entry["text_pair"] == "paragraph"


@pytest.mark.parametrize("labels", [["[a]", "[b]"], ['["a"]', '["b"]'], ["[1]", "[2]"]])
def test_a_label_in_brackets_stays_one_label(labels: list[str], tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ["text", "label"], [[f"text number {i}", labels[i % 2]] for i in range(40)])
    understood = look_at(tmp_path / "a.csv")
    assert (understood.benchmark, understood.labels) == ("text-classification", {labels[0]: 20, labels[1]: 20})


def test_labels_too_seldom_for_three_splits_are_left_out_and_named(tmp_path: Path) -> None:
    path = tickets(tmp_path, count=600)
    with path.open("a") as file:
        file.write("600,just once,lonely\n")
    understood = look_at(path)
    assert understood.entry["labels"] == ["food", "road", "water"]
    assert any("'lonely' (1)" in note for note in understood.notes)


def test_lines_that_cannot_be_read_are_shown_and_the_dial_that_leaves_them_out(tmp_path: Path) -> None:
    path = tickets(tmp_path)
    with path.open("a") as file:
        file.write("61,too,many,columns\n")
    understood = look_at(path)
    assert understood.problems == (f"expected 3 columns, got 4: '61,too,many,columns' ({path}:62)",)
    assert any("malformed: leave_out" in note for note in understood.notes)


def test_the_entries_of_the_guide_are_read(root: Path, tmp_path: Path) -> None:
    [block] = [block.split("```")[0] for block in (root / "docs" / "data.md").read_text().split("```yaml\n")[1:]]
    (tmp_path / "params.yaml").write_text(block)
    file = SettingsFile(tmp_path / "params.yaml")
    read = [file.read_as(SourceSettings, ("datasets", name)) for name in file.values["datasets"]]
    assert {entry.format for entry in read} >= {"csv", "quoted_tsv", "parquet", "datasets", "conll", "jsonl"}


FILES = Path(__file__).parent / "files"


def test_of_a_saved_folder_only_what_its_lists_name_is_data(tmp_path: Path) -> None:
    """``map`` leaves a cache beside the data; a copy that stopped half way lacks a split, and is no smaller data set."""
    shutil.copytree(FILES / "texts_on_disk", tmp_path / "saved")
    whole = look_at(tmp_path / "saved")
    for split in ("train", "test"):
        [*_, some] = sorted((tmp_path / "saved" / split).glob("*.arrow"))
        shutil.copy(some, tmp_path / "saved" / split / "cache-0123456789abcdef.arrow")
    cached = look_at(tmp_path / "saved")
    assert (cached.entry, cached.rows, cached.labels) == (whole.entry, whole.rows, whole.labels)
    shutil.rmtree(tmp_path / "saved" / "test")
    with pytest.raises(DataRefused, match=r"saved/test is missing or empty, but .*dataset_dict\.json lists it; copy the folder again"):
        look_at(tmp_path / "saved")
    shutil.copytree(FILES / "texts_on_disk" / "test", tmp_path / "saved" / "test")
    next((tmp_path / "saved" / "test").glob("*.arrow")).unlink()
    with pytest.raises(DataRefused, match=r"data-00000-of-00001\.arrow is missing"):
        look_at(tmp_path / "saved")


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["a", "a", "", "b"], ["-1", "3", "7", "2", "9"]])
def test_a_column_called_label_is_the_label_however_few_rows_there_are(tmp_path: Path, labels: list[str]) -> None:
    (tmp_path / "few.csv").write_text("text,label\n" + "".join(f"maji ya leo {i},{label}\n" for i, label in enumerate(labels)))
    understood = look_at(tmp_path / "few.csv")
    assert (understood.entry["benchmark"], understood.entry["label"]) == ("text-classification", "label")


@pytest.mark.parametrize(
    ("text", "encoding"), [("Größe für Käse – „schön“", "cp1252"), ("żółć gęś łódź źdźbło", "cp1250"), ("привет как дела сегодня", "cp1251")]
)
def test_another_encoding_is_named_as_it_likely_is(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "e.csv").write_bytes(("text,label\n" + "".join(f"{text} is the text of row {i} today,{'ab'[i % 2]}\n" for i in range(30))).encode(encoding))
    with pytest.raises(DataRefused, match=f"looks like {encoding}" if encoding == "cp1252" else "looks like (?!cp1252)"):
        look_at(tmp_path / "e.csv")


def test_an_entry_of_before_is_written_as_before() -> None:
    entry = {"benchmark": "text-classification", "format": "tsv", "source": "raw/x", "files": "{split}.tsv"}
    assert SourceSettings.model_validate(entry).model_dump(mode="json").keys() == {
        "benchmark", "format", "source", "files", "rename", "labels", "text", "label", "group", "split_off", "malformed", "running_text",
    }  # fmt: skip
    assert SourceSettings.model_validate(entry | {"encoding": "cp1252"}).model_dump(mode="json")["encoding"] == "cp1252"
