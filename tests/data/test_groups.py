"""Groups: read where the data names them, never torn between splits, and unseen in data that has none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.benchmarks import Example, get_benchmark
from recompress.data.formats.readers import read_rows
from recompress.data.groups import whole_groups
from recompress.data.observe import observe_rows
from recompress.data.prepare import prepare, write
from recompress.data.sources import RawPart, SourceSettings, SplitOff, read_raw
from recompress.data.splits import read_split
from recompress.errors import DataRefused
from recompress.gate import read_measured
from recompress.integrity.digest import sha256_file
from recompress.measure.quality import group_numbers, write_predictions
from recompress.records import Evaluation, Split

TEXTS = SourceSettings(benchmark="text-classification", format="tsv", source="raw", files="{slice}/{split}.tsv")
SPLIT = TEXTS.model_copy(update={"split_off": {"test": SplitOff(share=0.3), "dev": SplitOff(share=0.2)}})


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def part(split: Split, slice_: str, *rows: tuple[str, str, str]) -> RawPart:
    return RawPart(split, slice_, [Example((text,), (label,), slice_, group) for text, label, group in rows])


def groups_by_split(splits: dict[Split, dict[str, list[Example]]]) -> dict[str, set[str]]:
    return {split: {row.group for rows in slices.values() for row in rows} - {""} for split, slices in splits.items()}


def test_a_column_or_a_key_names_groups(tmp_path: Path) -> None:
    tsv = put(tmp_path / "a.tsv", "text\tlabel\tauthor\none\ta\tann\ntwo\tb\t\n")
    jsonl = put(tmp_path / "a.jsonl", '{"text": "one", "label": "a", "author": "ann"}\n{"text": "two", "label": "b", "author": ""}\n')
    for path, kind in ((tsv, "tsv"), (jsonl, "jsonl")):
        assert [row.group for row in read_rows(path, kind, group="author").rows] == ["ann", ""]
        assert [row.group for row in read_rows(path, kind).rows] == ["", ""]


def test_where_a_group_should_be_named_and_is_not_the_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"a header with a column 'author'.*a\.tsv:1"):
        read_rows(put(tmp_path / "a.tsv", "text\tlabel\none\ta\n"), "tsv", group="author")
    with pytest.raises(DataRefused, match=r"the string 'author', empty where.*a\.jsonl:1"):
        read_rows(put(tmp_path / "a.jsonl", '{"text": "one", "label": "a"}\n'), "jsonl", group="author")
    with pytest.raises(ValueError, match="plain text"):
        SourceSettings(benchmark="language-modelling", format="lines", source="raw", files="{split}.txt", group="x")


CONLL = "Leo O\n\n-DOCSTART- O\n\nNa O\nKe B-X\n\nSi O\n-DOCSTART- O\nMo O\n"


def test_marks_in_conll_begin_documents_and_are_no_sentences(tmp_path: Path) -> None:
    reading = read_rows(put(tmp_path / "a.txt", CONLL), "conll", group="-DOCSTART-")
    assert [(row.words, row.line, row.group) for row in reading.rows] == [
        (("Leo",), 1, "0"),
        (("Na", "Ke"), 5, "3"),
        (("Si",), 8, "3"),
        (("Mo",), 10, "9"),
    ]
    assert [row.words for row in read_rows(tmp_path / "a.txt", "conll").rows][1] == ("-DOCSTART-",), "a word like any other, where nobody calls it a mark"


def test_documents_of_two_files_are_two_whatever_line_they_stand_on(tmp_path: Path) -> None:
    source = SourceSettings(benchmark="token-classification", format="conll", source="raw", files="{slice}/{split}.txt", group="-DOCSTART-")
    for name in ("east", "west"):
        put(tmp_path / name / "train.txt", "-DOCSTART- O\n\nNa O\n")
    assert [example.group for part in read_raw(tmp_path, source) for example in part.examples] == ["east/train.txt:1", "west/train.txt:1"]


ROWS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.sampled_from(["", *"pqrstuvw"])), min_size=12, max_size=60)


@given(st.lists(ROWS, min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_group_is_ever_in_two_splits(drawn: list[list[tuple[int, str, str]]], own_test: bool) -> None:
    parts = [part("train", f"s{i}", *((f"text {text}", label, group) for text, label, group in rows)) for i, rows in enumerate(drawn)]
    parts += [part("test", "s0", ("a text of its own", "a", "p"), ("another of its own", "b", ""))] if own_test else []
    settings_ = SPLIT.model_copy(update={"split_off": {"dev": SPLIT.split_off["dev"]}}) if own_test else SPLIT
    try:
        splits, counts = prepare(parts, settings_)
    except DataRefused:
        return  # one large group left nothing of a slice
    groups = groups_by_split(splits)
    assert not groups["train"] & groups["dev"]
    assert not (groups["train"] | groups["dev"]) & groups["test"]
    assert not own_test or {row.words[0] for row in splits["test"]["s0"]} == {"a text of its own", "another of its own"}, "test loses nothing"
    for split, slices in counts.items():
        for name, tally in slices.items():
            assert tally["kept"] == len(splits[split][name])


def test_as_many_rows_are_split_off_as_asked_and_the_rest_of_a_group(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 100 // 50], f"g{i // 5}") for i in range(1000)]
    splits, _ = prepare([part("train", "x", *rows)], SPLIT)
    assert 300 <= len(splits["test"]["x"]) <= 310
    labels = Counter(row.labels[0] for row in splits["test"]["x"])
    assert abs(labels["a"] - labels["b"]) <= 5
    assert all(count == 5 for count in Counter(row.group for row in splits["test"]["x"]).values())


def test_a_group_that_spans_slices_goes_with_its_first_part() -> None:
    decided: dict[str, bool] = {}
    one = [Example((f"one {i}",), ("a",), "x", f"g{i}") for i in range(10)]
    other = [Example((f"two {i}",), ("a",), "y", f"g{i}") for i in range(10)]
    taken = whole_groups(one, 0.3, decided, [row.labels for row in one])
    assert len(taken) == 3
    assert whole_groups(other, 0.6, decided, [row.labels for row in other]) == taken, "more are wanted, but nothing of the others may come"


def test_of_a_group_in_two_raw_splits_test_keeps_its_rows_and_the_others_are_counted() -> None:
    parts = [
        part("train", "x", ("one", "a", "p"), ("two", "a", "q"), ("three", "a", "r")),
        part("dev", "x", ("four", "a", "p"), ("five", "a", "q")),
        part("test", "x", ("six", "a", "p")),
    ]
    splits, counts = prepare(parts, TEXTS)
    assert groups_by_split(splits) == {"train": {"r"}, "dev": {"q"}, "test": {"p"}}
    assert (counts["train"]["x"]["group_in_test"], counts["train"]["x"]["group_in_dev"], counts["dev"]["x"]["group_in_test"]) == (1, 1, 1)
    assert list(observe_rows(parts, TEXTS)["group_elsewhere"]) == [0, 0, 0, 1, 1, 1]
    assert not observe_rows([part(split, "x", *((" ".join(r.words), r.labels[0], r.group) for r in rows["x"])) for split, rows in splits.items()], TEXTS)[
        "group_elsewhere"
    ].any()


def test_the_tail_of_running_text_takes_whole_groups() -> None:
    settings_ = TEXTS.model_copy(update={"running_text": True, "split_off": {"test": SplitOff(share=0.2, take="tail")}})
    splits, _ = prepare([part("train", "x", *((f"a long enough text {i}", "a", f"g{i // 4}") for i in range(12)))], settings_)
    assert [row.group for row in splits["test"]["x"]] == ["g2"] * 4


def test_groups_come_back_and_data_without_them_has_no_column(tmp_path: Path) -> None:
    for name, group in (("with", "p"), ("without", "")):
        parts = [part("train", "x", ("one", "a", group), ("two", "b", "")), part("test", "x", ("three", "a", ""))]
        folder = tmp_path / name
        folder.mkdir()
        write(*prepare(parts, TEXTS), TEXTS, folder)
        assert [example.group for example in read_split(folder, "train")] == [group, ""]
        assert [example.group for example in read_split(folder, "test")] == [""]
        assert ("group" in pq.read_schema(folder / "test.parquet").names) == (name == "with")


def test_predictions_say_who_belongs_together_but_not_to_whom(tmp_path: Path) -> None:
    examples = [Example((f"t{i}",), ("a",), "x", group) for i, group in enumerate(["", "ann", "", "ben", "ann"])]
    assert group_numbers(examples) == [0, 1, 2, 3, 1]
    assert group_numbers([Example(("t",), ("a",))]) is None
    benchmark, answers = get_benchmark("text-classification"), [("a",)] * 5
    counts = benchmark.counts([example.labels for example in examples], answers, ["a", "b"])
    path = tmp_path / "p.parquet"
    write_predictions(path, examples, answers, counts, benchmark, ["a", "b"])
    assert b"ann" not in path.read_bytes()
    evaluation = Evaluation(model="m", model_sha256="a" * 64, dataset_sha256="b" * 64, metrics={}, slices={}, predictions_sha256=sha256_file(path))
    assert list(read_measured(evaluation, path).groups or ()) == [0, 1, 2, 3, 1]
    write_predictions(path, [Example(example.words, example.labels, "x") for example in examples], answers, counts, benchmark, ["a", "b"])
    assert "group" not in pq.read_schema(path).names
