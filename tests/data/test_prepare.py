from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recompress
from recompress.benchmarks import Example
from recompress.data.prepare import prepare, summary, write
from recompress.data.sources import RawPart, SourceSettings, SplitOff, raw_files, read_raw, read_settings_of
from recompress.data.splits import preparation, read_split
from recompress.errors import DataRefused, InputError
from recompress.records import Split

TEXTS = SourceSettings(benchmark="text-classification", format="tsv", source="raw", files="{slice}/{split}.tsv")
TAGGED = SourceSettings(benchmark="token-classification", format="conll", source="raw", files="{slice}/{split}.txt", labels=("O", "B-X", "I-X"))


def part(split: Split, slice_: str, *texts: str) -> RawPart:
    """Texts labelled with what stands after the bar."""
    examples = [Example((text.split("|")[0],), (text.split("|")[1] if "|" in text else "a",), slice_) for text in texts]
    return RawPart(split, slice_, examples, [(Path("x"), i) for i, _ in enumerate(examples)])


def words(splits: dict[Split, dict[str, list[Example]]], split: Split, slice_: str) -> list[str]:
    return [example.words[0] for example in splits[split][slice_]]


def test_test_keeps_what_leaks_and_train_and_dev_lose_it_across_slices() -> None:
    parts = [
        part("train", "east", "one", "two", "three", "four"),
        part("train", "west", "five", "six", "one"),
        part("dev", "east", "two", "seven", "eight"),
        part("dev", "west", "nine"),
        part("test", "east", "three", "seven"),
        part("test", "west", "five", "six2"),
    ]
    splits, counts = prepare(parts, TEXTS)
    assert words(splits, "train", "east") == ["one", "four"]
    assert words(splits, "train", "west") == ["six", "one"]
    assert words(splits, "dev", "east") == ["two", "eight"]
    assert words(splits, "test", "east") == ["three", "seven"]
    assert +counts["train"]["east"] == {"read": 4, "also_in_test": 1, "also_in_dev": 1, "kept": 2}
    assert counts["train"]["west"]["also_in_test"] == counts["dev"]["east"]["also_in_test"] == 1


def test_leaks_are_seen_through_other_ways_of_writing_the_same() -> None:
    splits, counts = prepare(
        [part("train", "x", "cafe\u0301", "CAF\u00c9!", "b"), part("test", "x", "caf\u00e9"), part("dev", "x", "ca\u200bf\u00e9", "d")], TEXTS
    )
    assert (words(splits, "train", "x"), words(splits, "dev", "x")) == (["b"], ["d"])
    assert (counts["train"]["x"]["not_nfc"], counts["train"]["x"]["also_in_test"]) == (1, 2)


def test_the_same_text_in_two_slices_of_test_stays_in_both() -> None:
    splits, _ = prepare([part("train", "x", "a"), part("train", "y", "b"), part("test", "x", "c"), part("test", "y", "c")], TEXTS)
    assert words(splits, "test", "x") == words(splits, "test", "y") == ["c"]


TEXT = st.tuples(st.sampled_from(["a1", "b2", "c3", "d4", "e\u0301", "\u00e9", "\ufffd", "f\u200b", "f"]), st.sampled_from("pq"))


@given(st.dictionaries(st.tuples(st.sampled_from(["train", "dev", "test"]), st.sampled_from(["x", "y"])), st.lists(TEXT, min_size=1, max_size=8), min_size=1))
def test_every_row_that_was_read_is_kept_or_counted(drawn: dict[tuple[Split, str], list[tuple[str, str]]]) -> None:
    parts = [part(split, slice_, *(f"{text}|{label}" for text, label in rows)) for (split, slice_), rows in drawn.items()]
    try:
        splits, counts = prepare(parts, TEXTS)
    except DataRefused:
        return
    for split, slices in counts.items():
        for name, tally in slices.items():
            dropped = ("lost_characters", "unknown_labels", "no_words", "conflicts", "repeats", "also_in_test", "also_in_dev")
            assert tally["read"] == tally["kept"] + sum(tally[reason] for reason in dropped)
            assert tally["kept"] == len(splits[split][name]) == len({row.words for row in splits[split][name]})
    everything = {split: {row.words for rows in slices.values() for row in rows} for split, slices in splits.items()}
    train, dev, test = (everything.get(split, set()) for split in ("train", "dev", "test"))
    assert not train & (dev | test)
    assert not dev & test


def test_a_split_is_made_of_the_same_rows_in_whatever_order_they_come() -> None:
    settings = TEXTS.model_copy(update={"split_off": {"test": SplitOff(share=0.25), "dev": SplitOff(share=0.1)}})
    texts = [f"text {i}|{'ab'[i % 2]}" for i in range(80)]
    one, counts = prepare([part("train", "x", *texts)], settings)
    other, _ = prepare([part("train", "x", *reversed(texts))], settings)
    for split in ("train", "dev", "test"):
        assert {row.words for row in one[split]["x"]} == {row.words for row in other[split]["x"]}
    assert {split: len(rows["x"]) for split, rows in one.items()} == {"test": 20, "dev": 6, "train": 54}
    assert sum(row.labels == ("a",) for row in one["test"]["x"]) == 10
    assert counts["train"]["x"]["moved_to_test"] == counts["test"]["x"]["read"] == 20


def test_a_label_that_is_rare_is_split_off_too_and_every_label_by_its_own_share() -> None:
    settings = TEXTS.model_copy(update={"split_off": {"test": SplitOff(share=0.1)}})
    texts = [f"often {i}|a" for i in range(20)] + [f"seldom {i}|b" for i in range(11)] + ["once|c"]
    splits, _ = prepare([part("train", "x", *texts)], settings)
    assert Counter(row.labels[0] for row in splits["test"]["x"]) == {"a": 2, "b": 2, "c": 1}, "rounded up, label by label"


@pytest.mark.parametrize("grouped", [False, True])
def test_labels_that_are_too_rare_stay_in_train_where_that_is_said(grouped: bool) -> None:
    settings = TEXTS.model_copy(update={"split_off": {"test": SplitOff(share=0.4, rare=5), "dev": SplitOff(share=0.2, rare=5)}})
    raw = part("train", "x", *(f"often {i}|a" for i in range(40)), *(f"too {i}|b" for i in range(40)), *(f"seldom {i}|c" for i in range(4)), "once|d")
    raw.examples[:] = [replace(row, group=f"g{i % 40 if i < 80 else i}") for i, row in enumerate(raw.examples)] if grouped else raw.examples
    splits, _ = prepare([raw], settings)
    shown = {split: Counter(row.labels[0] for row in slices["x"]) for split, slices in splits.items()}
    assert (shown["train"]["c"], shown["train"]["d"]) == (4, 1)
    assert {*shown["test"]} == {*shown["dev"]} == {"a", "b"}
    assert abs(shown["test"]["a"] - 16) <= 1


def test_sentences_are_then_drawn_by_their_rarest_type() -> None:
    """By their whole row of tags nearly each is of a kind of its own, and a share of one, rounded up, is one."""
    kinds = {"": 60, "PER": 30, "LOC": 20, "EVT": 3}
    rows = [
        Example((*(f"{kind}{i}w{j}" for j in range(i % 7 + 2)),), (*(f"B-{kind}" if kind and j == i % (i % 7 + 2) else "O" for j in range(i % 7 + 2)),), "x")
        for kind, count in kinds.items()
        for i in range(count)
    ]
    settings = TAGGED.model_copy(update={"labels": None, "split_off": {"test": SplitOff(share=0.3, rare=5)}})
    splits, _ = prepare([RawPart("train", "x", rows, [(Path("x"), i) for i, _ in enumerate(rows)])], settings)
    assert Counter(next((tag[2:] for tag in row.labels if tag != "O"), "") for row in splits["test"]["x"]) == {"": 18, "PER": 9, "LOC": 6}


def test_how_a_split_is_made_is_written_as_before_where_nothing_new_is_said() -> None:
    assert SplitOff(share=0.3).model_dump() == {"share": 0.3, "take": "hash"}
    assert SplitOff(share=0.3, rare=5).model_dump()["rare"] == 5


def test_the_tail_of_running_text_is_taken_with_its_repeats() -> None:
    settings = SourceSettings(
        benchmark="language-modelling",
        format="lines",
        source="raw",
        files="{split}.txt",
        running_text=True,
        split_off={"dev": SplitOff(share=0.3, take="tail")},
    )
    lines = [" = History = ", "a long line that stands in train and in test", "b", "c", "d", "e", "f", " = History = ", "g", "h"]
    splits, counts = prepare(
        [RawPart("train", "all", [Example((line,)) for line in lines]), RawPart("test", "all", [Example((lines[0],)), Example((lines[1],))])], settings
    )
    assert words(splits, "dev", "all") == [" = History = ", "g", "h"]
    assert words(splits, "train", "all") == [" = History = ", "b", "c", "d", "e", "f"], "a heading is no leak, a sentence is"
    assert counts["train"]["all"]["also_in_test"] == 1


def test_a_split_that_is_there_is_not_made_again() -> None:
    settings = TEXTS.model_copy(update={"split_off": {"dev": SplitOff(share=0.1)}})
    with pytest.raises(DataRefused, match="has a dev split of its own"):
        prepare([part("train", "x", "a"), part("dev", "x", "b")], settings)


def test_nothing_left_of_a_slice_is_refused_with_the_reason() -> None:
    with pytest.raises(DataRefused, match="nothing is left of slice 'x' of train: also_in_test 1"):
        prepare([part("train", "x", "a"), part("test", "x", "a")], TEXTS)


def test_many_unknown_labels_are_a_mistake_in_the_settings() -> None:
    few = [Example(("leo",), ("O",), "x") for _ in range(199)]
    strange = Example(("simba",), ("B-ANIMAL",), "x")
    _, counts = prepare([RawPart("train", "x", [*few, strange])], TAGGED)
    assert counts["train"]["x"]["unknown_labels"] == 1
    with pytest.raises(DataRefused, match=r"labels that params\.yaml does not list: 'B-ANIMAL'"):
        prepare([RawPart("train", "x", [few[0], strange])], TAGGED)


def test_the_same_rows_give_the_same_bytes_and_read_back(tmp_path: Path) -> None:
    parts = [part("train", "x", "one|b", "two", "two"), part("train", "a", "three"), part("test", "x", "four")]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        splits, counts = prepare(parts, TEXTS)
        write(splits, counts, TEXTS, tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    assert [row.words[0] for row in read_split(tmp_path / "first", "train")] == ["three", "one", "two"]
    document = preparation(tmp_path / "first")
    assert document["rows"] == {"train": 3, "test": 1}
    assert document["counts"]["train"]["x"] == {"read": 3, "kept": 2, "repeats": 1}
    assert (document["labels"], document["slices"]) == (["a", "b"], ["a", "x"])


def test_labels_keep_the_order_of_the_settings() -> None:
    splits, counts = prepare([RawPart("train", "x", [Example(("leo", "na"), ("I-X", "O"), "x")])], TAGGED)
    assert splits["train"]["x"][0].labels == ("B-X", "O")
    assert summary(splits, counts, TAGGED)["labels"] == ["O", "B-X"]


PARAMS = """
datasets:
  toy: {benchmark: token-classification, format: conll, source: raw, files: "{slice}/{split}.txt", labels: [O, B-X, I-X]}
"""


def stage(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(recompress.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-m", "recompress.data.prepare", name], cwd=folder, capture_output=True, text=True, env=environment, check=False, timeout=60
    )


def test_the_stage_of_dvc_yaml(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    missing = stage(tmp_path, "toy")
    assert (missing.returncode, missing.stderr.strip()) == (3, "raw is missing; `recompress data` says how to get it")
    (tmp_path / "raw" / "x").mkdir(parents=True)
    (tmp_path / "raw" / "x" / "train.txt").write_text("leo I-X\n O\n\nna ya O\n")
    (tmp_path / "raw" / "x" / "test.txt").write_text("jana B-X\n")
    broken = stage(tmp_path, "toy")
    assert broken.returncode == 3
    assert broken.stderr.startswith("expected 'token TAG' with a tag like O, B-PER or I-PER, got 'na ya O' (raw/x/train.txt:4); correct the file")
    (tmp_path / "params.yaml").write_text(PARAMS.replace("format: conll", "format: conll, malformed: leave_out"))
    assert stage(tmp_path, "toy").returncode == 0
    document = json.loads((tmp_path / "prepared" / "toy" / "preparation.json").read_text())
    assert document["counts"]["train"]["x"] == {"read": 1, "kept": 1, "empty_words": 1, "malformed_lines": 1, "invalid_bio": 1}
    assert stage(tmp_path, "toi").returncode == 2
    (tmp_path / "raw" / "x" / "test.txt").write_text("\n")
    assert stage(tmp_path, "toy").returncode == 3
    assert json.loads((tmp_path / "prepared" / "toy" / "preparation.json").read_text()) == document, "what was there before is there whole"
    assert len(list((tmp_path / "prepared").iterdir())) == 1, "nothing half-written is left"


def test_settings_are_strict(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    with pytest.raises(InputError, match=r"unknown data set 'toi'.*did you mean 'toy'"):
        read_settings_of(tmp_path, "toi")
    for change, words_ in (("format: conll", "Input should be|format"), ("{slice}/{split}.txt", "below the source")):
        wrong = PARAMS.replace(change, "format: conl" if change.startswith("format") else "../x")
        (tmp_path / "params.yaml").write_text(wrong)
        with pytest.raises(InputError, match=words_):
            read_settings_of(tmp_path, "toy")
    for outside in ("/{slice}/{split}.txt", "x/../../{split}.txt"):
        (tmp_path / "params.yaml").write_text(PARAMS.replace("{slice}/{split}.txt", outside))
        with pytest.raises(InputError, match="below the source"):
            read_settings_of(tmp_path, "toy")
    (tmp_path / "params.yaml").write_text("pydocs: {}\n")
    with pytest.raises(InputError, match="no data set is described"):
        read_settings_of(tmp_path, "toy")


def test_raw_files_that_should_not_be_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(DataRefused, match="is empty"):
        raw_files(tmp_path / "x", TEXTS)
    (tmp_path / "x" / "train.tsv").write_text("text\tlabel\nleo\ta\n")
    (tmp_path / "x" / "validation.tsv").write_text("text\tlabel\nleo\ta\n")
    with pytest.raises(DataRefused, match=r"validation\.tsv is not one of the files"):
        raw_files(tmp_path, TEXTS)
    renamed = TEXTS.model_copy(update={"rename": {"validation": "dev"}})
    assert [(split, name) for _, split, name in raw_files(tmp_path, renamed)] == [("train", "x"), ("dev", "x")]
    assert [part.split for part in read_raw(tmp_path, renamed, slices=("x",))] == ["train", "dev"]
    with pytest.raises(DataRefused, match="unknown slice 'xy'"):
        read_raw(tmp_path, renamed, slices=("xy",))


def test_rows_may_name_their_slice_themselves(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "leo", "label": "a", "slice": "p"}\nbroken\n{"text": "na", "label": "a"}\n')
    settings = SourceSettings(benchmark="text-classification", format="jsonl", source="raw", files="{slice}.jsonl")
    parts = read_raw(tmp_path, settings)
    assert [(raw.slice, [row.words[0] for row in raw.examples], raw.count("malformed_lines")) for raw in parts] == [
        ("one", ["na"], 0),
        ("p", ["leo"], 1),
    ]
    assert [raw.slice for raw in read_raw(tmp_path, settings, slices=("p",))] == ["p"]
