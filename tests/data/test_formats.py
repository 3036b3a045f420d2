"""Every format, written by the tools that people use, gives the same prepared rows; what is broken is named by file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recompress.benchmarks import Example
from recompress.data.formats.readers import read_rows
from recompress.data.infer.looking import look_at
from recompress.data.infer.understood import understand
from recompress.data.layout import Format
from recompress.data.prepare import prepare
from recompress.data.sources import SourceSettings, read_raw
from recompress.errors import DataRefused, InputError
from tests.data.made_up import NAMES, SPLITS, TAGGED

FILES = Path(__file__).parent / "files"
Rows = list[dict[str, Any]]


def frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows)


def excel(rows: Rows, path: Path) -> None:
    """As Excel saves "CSV UTF-8": a byte order mark, Windows line ends, quotes where they are needed."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect="excel")
        writer.writeheader()
        writer.writerows(rows)


def plain_tsv(rows: Rows, path: Path) -> None:
    """Tabs and nothing else, as data sets of tweets come: no text can hold a tab or a line end."""
    path.write_text("".join(f"{a}\t{b}\n" for a, b in [("text", "label"), *((" ".join(row["text"].split()), row["label"]) for row in rows)]))


TEXTS: dict[str, tuple[str, Callable[[Rows, Path], Any]]] = {
    "csv by pandas": ("csv", lambda rows, path: frame(rows).to_csv(path, index=False)),
    "csv by pandas with its index": ("csv", lambda rows, path: frame(rows).to_csv(path)),
    "csv by Excel": ("csv", excel),
    "csv with semicolons": ("csv", lambda rows, path: frame(rows).to_csv(path, index=False, sep=";", quoting=csv.QUOTE_ALL)),
    "csv without a header": ("csv", lambda rows, path: frame(rows).to_csv(path, index=False, header=False)),
    "tsv with quotes": ("tsv", lambda rows, path: frame(rows).to_csv(path, index=False, sep="\t")),
    "tsv without quotes": ("tsv", plain_tsv),
    "json lines by pandas": ("jsonl", lambda rows, path: frame(rows).to_json(path, orient="records", lines=True)),
    "json lines by Python": ("jsonl", lambda rows, path: path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))),
    "json records": ("json", lambda rows, path: frame(rows).to_json(path, orient="records", indent=2)),
    "json columns": ("json", lambda rows, path: frame(rows).to_json(path)),
    "json under a key": ("json", lambda rows, path: path.write_text(json.dumps({"version": "1.0", "data": rows}, indent=1))),
    "parquet by pandas": ("parquet", lambda rows, path: frame(rows).to_parquet(path)),
    "parquet with categories": ("parquet", lambda rows, path: frame(rows).astype({"label": "category"}).to_parquet(path)),
}


def prepared(path: Path, **dials: Any) -> dict[str, list[Example]]:
    """The prepared rows of what is at ``path``, read by the entry that looking at it gives."""
    understood = look_at(path, **dials)
    assert understood.problems == ()
    splits, _ = prepare(
        read_raw(path, SourceSettings.model_validate_json(json.dumps(understood.entry))), SourceSettings.model_validate_json(json.dumps(understood.entry))
    )
    return {split: [example for rows in slices.values() for example in rows] for split, slices in splits.items()}


def of_texts() -> dict[str, list[Example]]:
    return {split: [Example((" ".join(row["text"].split()),), (row["label"],)) for row in rows] for split, rows in SPLITS.items()}


def of_words() -> dict[str, list[Example]]:
    return {split: [Example(tuple(row["tokens"]), tuple(row["ner_tags"])) for row in rows] for split, rows in TAGGED.items()}


@pytest.mark.parametrize("tool", TEXTS)
def test_texts_by_every_tool_become_the_same_rows(tool: str, tmp_path: Path) -> None:
    ending, write = TEXTS[tool]
    for split, rows in SPLITS.items():
        write(rows, tmp_path / f"{split}.{ending}")
    assert prepared(tmp_path) == of_texts()


@pytest.mark.parametrize("folder", ["texts_on_disk", "texts_parquet"])
def test_texts_by_the_datasets_library_become_the_same_rows_and_its_numbers_their_names(folder: str) -> None:
    assert prepared(FILES / folder) == of_texts()


@pytest.mark.parametrize(("folder", "dials"), [("words_on_disk", {}), ("words_jsonl", {"names": list(NAMES)})])
def test_words_by_the_datasets_library_become_the_same_rows(folder: str, dials: dict[str, Any]) -> None:
    assert prepared(FILES / folder, **dials) == of_words()


def test_tags_that_are_numbers_without_names_are_refused_and_the_dial_is_named() -> None:
    with pytest.raises(DataRefused, match=r"'ner_tags' are numbers.*names: lists them"):
        look_at(FILES / "words_jsonl")
    with pytest.raises(DataRefused, match=r"'1' is no tag.*names: in params\.yaml.*:1\)"):
        read_rows(FILES / "words_jsonl" / "test.jsonl", "jsonl", benchmark="token-classification", text="tokens", label="ner_tags")


def test_one_dataset_on_disk_is_drawn_into_three_splits(tmp_path: Path) -> None:
    splits = prepared(FILES / "one_on_disk")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 12, "test": 8, "dev": 4}, "of each of four labels, rounded up"
    assert sorted(example.words for rows in splits.values() for example in rows) == sorted(example.words for example in of_texts()["train"])


def test_a_datasets_folder_that_was_copied_half_is_no_smaller_data_set(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(FILES / "texts_on_disk", tmp_path / "x")
    (tmp_path / "x" / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataRefused, match=r"data-00001-of-00002\.arrow is missing, but .*state\.json lists it"):
        look_at(tmp_path / "x")
    whole = FILES / "texts_on_disk" / "train" / "data-00000-of-00002.arrow"
    (tmp_path / "cut.arrow").write_bytes(whole.read_bytes()[:700])
    with pytest.raises(DataRefused, match=r"cut\.arrow cannot be read as an Arrow file of the datasets library"):
        read_rows(tmp_path / "cut.arrow", "datasets")
    (tmp_path / "cut.parquet").write_bytes((FILES / "texts_parquet" / "test-00000-of-00001.parquet").read_bytes()[:900])
    with pytest.raises(DataRefused, match=r"cut\.parquet cannot be read as Parquet"):
        read_rows(tmp_path / "cut.parquet", "parquet")


CLASSES = {"one": 1, "two": 2}
ANY = [True, False, 1, 2.5, "NA", "null", "None", "nan", "0", "007", "1e3", "yes"]


def test_labels_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"text {i}", "label": label}) + "\n" for i, label in enumerate(ANY)) + '{"text": "as written", "label": 1.50}\n'
    )
    assert [row.labels[0] for row in read_rows(path, "jsonl").rows] == [
        "true",
        "false",
        "1",
        "2.5",
        "NA",
        "null",
        "None",
        "nan",
        "0",
        "007",
        "1e3",
        "yes",
        "1.50",
    ]
    words = [str(label) for label in ANY if isinstance(label, str)]
    frame([{"text": f"text {i}", "label": word} for i, word in enumerate(words)]).to_csv(tmp_path / "a.csv", index=False)
    assert [row.labels[0] for row in read_rows(tmp_path / "a.csv", "csv").rows] == words
    for values in ([True, False], [1, 0], [1.0, 0.5]):
        frame([{"text": f"text {value}", "label": value} for value in values]).to_parquet(tmp_path / "a.parquet")
        assert [row.labels[0] for row in read_rows(tmp_path / "a.parquet", "parquet").rows] == [json.dumps(value) for value in values]


def test_what_is_really_missing_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "b", "label": "x"}\n{"text": "a", "label": null}\n{"text": "c", "label": NaN}\n{"text": "d"}\n')
    reading = read_rows(tmp_path / "a.jsonl", "jsonl", strict=False)
    assert ([row.line for row in reading.rows], [problem.line for problem in reading.problems]) == ([1], [2, 3, 4])
    frame([{"text": "a", "label": "x"}, {"text": "b", "label": None}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataRefused, match=r"expected .*'label', got .*null.*a\.parquet:2\)"):
        read_rows(tmp_path / "a.parquet", "parquet")
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,\n")
    with pytest.raises(DataRefused, match=r"the label is empty: 'b' .*a\.csv:3\)"):
        read_rows(tmp_path / "a.csv", "csv")


def test_labels_in_params_yaml_that_yaml_turned_into_something_else_are_refused() -> None:
    for label in (1, True, None, 2.5):
        entry = {"benchmark": "text-classification", "format": "csv", "source": "raw/x", "files": "x.csv", "labels": ["a", label]}
        with pytest.raises(InputError, match=r"labels\.1 .*stands in quotes"):
            understand({}, entry, Path("x"))


def test_numbers_become_names_and_a_number_without_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,0\nb,1\nc,spam\nd,2\n")
    reading = read_rows(tmp_path / "a.csv", "csv", names=("ham", "spam"), strict=False)
    assert [row.labels[0] for row in reading.rows] == ["ham", "spam", "spam"]
    assert "'2' is none of the 2 names" in str(reading.problems[0])
    assert str(reading.problems[0]).endswith("a.csv:5)")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": -1}\n')
    with pytest.raises(DataRefused, match=r"'-1' is none of the 2 names.*:1\)"):
        read_rows(tmp_path / "a.jsonl", "jsonl", names=("ham", "spam"))


BROKEN: list[tuple[Format, str, str, int]] = [
    ("csv", 'text,label\n"a\nb",x\nc,x,y\n', "expected 2 columns, got 3: 'c,x,y'", 4),
    ("csv", 'text,label\na,x\n"b ""c"" d,x\nmore\n', "the quote that this row opens is never closed", 3),
    ("csv", 'text,label\na,x\n"b "c" d",x\n', "a quote stands inside a quoted field", 3),
    ("csv", "text,text,label\na,b,c\n", "two columns are called 'text'", 1),
    ("csv", "text;label\na;x\n", "expected a header with a column 'text', got 'text;label'", 1),
    ("quoted_tsv", 'text\tlabel\n"a\n\nb"\tx\nc\n', "expected 2 columns, got 1", 5),
    ("json", '[\n{"text": "a", "label": "x"},\n{"text": "b" "label": "x"}\n]', "not JSON", 3),
    ("json", '[\n{"text": "a", "label": "x"},\n\n{"text": ["b"], "label": "x"}\n]', "expected an object with the strings 'text' and 'label'", 4),
    ("json", '{"a": 1}', "expected a list of objects, alone or under one key", 1),
    ("json", '{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}', "JSON lines are format: jsonl", 1),
    ("jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": "x", "label": "y"}\n', "the key 'label' stands twice", 2),
    ("jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": ["x", "y"]}\n', "2 labels stand in 'label', one is expected", 2),
    ("jsonl", '{"text": "a", "label": "x"}\n{"text": "b \\ud83d", "label": "x"}\n', r"half of a character (\ud83d)", 2),
]


def test_rows_under_a_key_are_named_by_their_lines_also_where_another_list_is_called_so(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}]
    for meta, lines in (({}, [3, 7]), ({"rows": [1, 2]}, [1, 2])):
        (tmp_path / "a.json").write_text(json.dumps({"meta": meta, "rows": rows}, indent=1).replace('"meta": {},', '"meta": {}, '))
        assert [(row.words[0], row.line) for row in read_rows(tmp_path / "a.json", "json").rows] == list(
            zip("ab", [line + (not meta) for line in lines], strict=True)
        )


@pytest.mark.parametrize(("kind", "text", "what", "line"), BROKEN)
def test_what_is_broken_is_named_by_file_and_line(kind: Format, text: str, what: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(DataRefused) as refused:
        read_rows(path, kind)
    assert what in str(refused.value)
    assert str(refused.value).endswith(f"broken.txt:{line})")


def test_half_a_character_is_left_out_and_counted_when_said(tmp_path: Path) -> None:
    """One such row kept a whole data set out, with an error of another tool."""
    (tmp_path / "train.jsonl").write_text('{"text": "kula na \\ud83d leo", "label": "food"}\n{"text": "kazi ya leo", "label": "work"}\n')
    settings = SourceSettings(benchmark="text-classification", format="jsonl", source="raw", files="{split}.jsonl")
    with pytest.raises(DataRefused, match=r"half of a character.*train\.jsonl:1"):
        prepare(read_raw(tmp_path, settings), settings)
    settings = settings.model_copy(update={"malformed": "leave_out"})
    splits, counts = prepare(read_raw(tmp_path, settings), settings)
    assert [example.words for example in splits["train"]["all"]] == [("kazi ya leo",)]
    assert counts["train"]["all"]["malformed_lines"] == 1


def test_other_encodings_are_named_and_refused_or_read_when_they_are_named(tmp_path: Path) -> None:
    text = "text,label\n" + "".join(f"Das Gebäude für Ämter und Größen {i},öffentlich\n" for i in range(20))
    for encoding, dial in (("cp1252", "cp125[0-9]"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-32", "utf-32")):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(text.encode(encoding))
        for ask in (lambda path=path: read_rows(path, "csv"), lambda path=path: look_at(path)):
            with pytest.raises(DataRefused, match=rf"not UTF-8.*encoding: {dial}.*\.csv:[12]\)"):
                ask()
        assert read_rows(path, "csv", encoding=encoding).rows[3].words == ("Das Gebäude für Ämter und Größen 3",)
    with pytest.raises(DataRefused, match=r"the file is not ascii text: byte \d+ means nothing in it .*cp1252\.csv:2\)"):
        read_rows(tmp_path / "cp1252.csv", "csv", encoding="ascii")
    with pytest.raises(ValueError, match="an encoding that Python knows"):
        read_rows(tmp_path / "cp1252.csv", "csv", encoding="windows-western")


def test_quotes_that_are_characters_stay_so_and_marks_become_marks(tmp_path: Path) -> None:
    """News as it is published: quoted TSV whose texts hold line ends; and tweets, whose quotes mean nothing."""
    rows = [
        {"category": "ab"[i % 2], "headline": f'"Big" win {i}', "text": f'First line {i}.\n\nIt\'s the "second".\tTabbed', "url": f"https://x/{i}"}
        for i in range(40)
    ]
    frame(rows).to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    understood = look_at(tmp_path / "train.tsv")
    assert {key: understood.entry[key] for key in ("format", "text", "label")} == {"format": "quoted_tsv", "text": "text", "label": "category"}
    assert (understood.rows, understood.first[1].words[0], understood.first[1].line) == ({"train": 40}, rows[1]["text"], 5)
    tweets = tmp_path / "tweets.tsv"
    tweets.write_text("tweet\tlabel\n" + "".join(f'"{i} she said\t{"ab"[i % 2]}\nand "left" {i}"\t{"ab"[i % 2]}\n' for i in range(20)))
    assert (look_at(tweets).entry["format"], look_at(tweets).rows) == ("tsv", {"train": 40})


def test_rows_name_their_split_their_slice_and_whether_they_are_wanted(tmp_path: Path) -> None:
    called = {"train": "train", "validation": "dev", "test": "test"}
    rows = [
        {"text": f"{split} {lang} {i}", "label": "ab"[i % 2], "split": split, "lang": lang, "answer": "reject" if i == 3 else "accept"}
        for split in called
        for lang in ("sw", "yo")
        for i in range(40)
    ]
    frame(rows).to_csv(tmp_path / "all.csv", index=False)
    entry = look_at(tmp_path / "all.csv").entry
    assert {key: entry[key] for key in ("split", "rename", "slice", "where")} == {
        "split": "split",
        "rename": {"validation": "dev"},
        "slice": "lang",
        "where": {"answer": "accept"},
    }
    parts = read_raw(tmp_path, SourceSettings.model_validate_json(json.dumps(entry)))
    assert [(part.split, part.slice, len(part.examples)) for part in parts] == [
        (split, lang, 39) for split in ("train", "dev", "test") for lang in ("sw", "yo")
    ]
    assert sum(part.count("not_chosen") for part in parts) == 6
    frame([*rows, {**rows[0], "split": "held out"}]).to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(DataRefused, match=r"of split 'held out'.*rename: says which it is .*all\.csv:242\)"):
        read_raw(tmp_path, SourceSettings.model_validate_json(json.dumps(entry)))


def test_groups_of_one_file_stay_in_one_split(tmp_path: Path) -> None:
    frame([{"text": f"text {i}", "label": "ab"[i % 2], "author": f"author {i // 6}"} for i in range(120)]).to_csv(tmp_path / "a.csv", index=False)
    understood = look_at(tmp_path / "a.csv")
    assert any("group: author keeps the rows of each in one split" in note for note in understood.notes)
    splits = prepared(tmp_path, group="author")
    groups = {split: {example.group for example in rows} for split, rows in splits.items()}
    assert len(groups["train"]) + len(groups["dev"]) + len(groups["test"]) == 20
    assert all(groups.values())
