"""Prompts with right texts, from a file to prepared rows: lines and spaces stay, one right text or several, and what is none is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recompress.benchmarks import Example
from recompress.data.infer.looking import look_at
from recompress.data.prepare import prepare, summary, write
from recompress.data.sources import SourceSettings, read_raw
from recompress.data.splits import labels_of, read_split
from recompress.errors import DataRefused

ROWS: list[dict[str, Any]] = [
    {"prompt": "Say it twice:\n  leo", "answer": "leo  leo\n", "id": 1},
    {"prompt": "nyumba\u0300?", "answer": ["nyumbà", "e\u0301"], "id": 2},
    {"prompt": "12:00 is", "answer": ["12:00 noon", 12], "id": 3},
]


def settings_of(**changes: Any) -> SourceSettings:
    entry = {"benchmark": "text-generation", "format": "jsonl", "source": "raw/x", "files": "{split}.jsonl", "text": "prompt", "label": "answer"}
    return SourceSettings.model_validate_json(json.dumps(entry | changes))


def raw(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "test"):
        text = "".join(json.dumps(row | {"prompt": f"{row['prompt']}{'' if split == 'train' else ' again, and otherwise'}"}) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_prompts_keep_their_lines_and_right_texts_their_spaces(tmp_path: Path) -> None:
    splits, counts = prepare(read_raw(raw(tmp_path, ROWS), settings_of()), settings_of())
    [rows] = splits["train"].values()
    assert rows == [
        Example(("Say it twice:\n  leo",), ("leo  leo\n",), rows[0].slice),
        Example(("nyumbà?",), ("nyumbà", "é"), rows[0].slice),
        Example(("12:00 is",), ("12:00 noon", "12"), rows[0].slice),
    ]
    assert summary(splits, counts, settings_of())["labels"] == []
    (tmp_path / "made").mkdir()
    write(splits, counts, settings_of(), tmp_path / "made")
    assert read_split(tmp_path / "made", "train") == rows
    assert labels_of(tmp_path / "made", (rows[0].slice,)) == ()


@pytest.mark.parametrize("wrong", [{"prompt": "a"}, {"prompt": "a", "answer": []}, {"prompt": "a", "answer": " "}, {"prompt": "a", "answer": ["b", None]}])
def test_a_row_without_a_right_text_is_named_by_its_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataRefused, match=r"expected the text that is right under 'answer', or a list of such.*train\.jsonl:4"):
        prepare(read_raw(raw(tmp_path, [*ROWS, wrong]), settings_of()), settings_of())


def test_columns_are_found_by_what_people_call_them(tmp_path: Path) -> None:
    rows = [
        {"id": i, "instruction": f"write about number {i} and more of it", "input": "", "response": f"number {i} is a number like any other"} for i in range(40)
    ]
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entry = look_at(path, benchmark="text-generation").entry
    assert (entry["benchmark"], entry["text"], entry["label"]) == ("text-generation", "instruction", "response")
    assert look_at(path, benchmark="text-generation", text="response", label="instruction").entry["label"] == "instruction"
    one = tmp_path / "one.jsonl"
    one.write_text("".join(json.dumps({"prompt": f"write about number {i} and more"}) + "\n" for i in range(40)), encoding="utf-8")
    with pytest.raises(DataRefused, match="no second column is text that could be right; there are: prompt"):
        look_at(one, benchmark="text-generation")


def test_data_of_labels_may_be_asked_for_in_words(tmp_path: Path) -> None:
    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps({"text": f"a text of number {i}", "label": "ab"[i % 2]}) + "\n" for i in range(60)), encoding="utf-8")
    entry = look_at(path, benchmark="few-shot-classification").entry
    assert (entry["benchmark"], entry["label"]) == ("few-shot-classification", "label")
