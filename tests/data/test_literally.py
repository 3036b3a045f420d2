"""Values that mean nothing are not taken literally: null is no slice, a space makes no class, half a character is no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recompress.data.characters import tidy
from recompress.data.prepare import prepare
from recompress.data.sources import SourceSettings, read_raw
from recompress.errors import DataRefused

SETTINGS: dict[str, Any] = {"benchmark": "text-classification", "format": "jsonl", "source": "raw", "files": "{slice}/{split}.jsonl"}


def raw(folder: Path, *changed: dict[str, Any]) -> Path:
    (folder / "east").mkdir()
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(8)]
    for row, change in zip(rows, changed, strict=False):
        row |= change
    (folder / "east" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_null_is_as_if_the_key_was_not_there(tmp_path: Path) -> None:
    settings = SourceSettings(**SETTINGS)
    splits, _ = prepare(read_raw(raw(tmp_path, {"slice": None}, {"slice": ""}, {"slice": "west"}, {"slice": "west"}), settings), settings)
    assert {name: len(rows) for name, rows in splits["train"].items()} == {"east": 6, "west": 2}


@pytest.mark.parametrize(
    ("label", "meant"),
    [("a ", "a"), ("\u00a0a\u200b", "a"), ("two  words", "two words"), ("two words", "two words"), ("cafe\u0301", "caf\u00e9"), ("a/b-C_1", "a/b-C_1")],
)
def test_a_label_is_what_is_meant(label: str, meant: str) -> None:
    assert tidy(label) == meant == tidy(meant)


def test_labels_that_differ_by_a_space_are_one_class_and_counted(tmp_path: Path) -> None:
    settings = SourceSettings(**SETTINGS, labels=("a", "b"))
    splits, counts = prepare(read_raw(raw(tmp_path, {"label": "a "}, {}, {"label": "\ta"}), settings), settings)
    assert {row.labels for row in splits["train"]["east"]} == {("a",), ("b",)}
    assert (counts["train"]["east"]["untidy_labels"], counts["train"]["east"]["kept"]) == (2, 8)


@pytest.mark.parametrize("where", ["text", "label", "slice"])
def test_half_a_character_is_refused_by_file_and_line_or_counted(tmp_path: Path, where: str) -> None:
    folder = raw(tmp_path, {}, {}, {}, {where: "kula \ud83d leo"})
    settings = SourceSettings(**SETTINGS)
    with pytest.raises(DataRefused, match=r"half of a character .*east/train\.jsonl:4\); correct the file, or leave such "):
        prepare(read_raw(folder, settings), settings)
    settings = SourceSettings(**SETTINGS, malformed="leave_out")
    _, counts = prepare(read_raw(folder, settings), settings)
    assert (counts["train"]["east"]["malformed_lines"], counts["train"]["east"]["kept"]) == (1, 7)
