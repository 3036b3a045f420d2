"""``recompress data explain`` works anywhere on any file, and in a project on what params.yaml describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main

PARAMS = """
datasets:
  tickets: {benchmark: text-classification, format: csv, source: raw/tickets, files: "{split}.csv", text: body, label: "topic"}
"""


def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["--root", str(folder), "data", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    (tmp_path / "raw" / "tickets").mkdir(parents=True)
    file = tmp_path / "raw" / "tickets" / "train.csv"
    file.write_bytes(("id;body;topic\n" + "".join(f'{i};"das Gebäude\nNr. {i}";{("a", "b")[i % 2]}\n' for i in range(30))).encode("cp1252"))
    return file


def test_a_file_is_explained_without_a_project(tickets: Path, tmp_path: Path) -> None:
    code, _, error = call(tmp_path, "explain", str(tickets))
    assert (code, error.count("\n")) == (3, 1)
    assert "not UTF-8" in error
    code, text, _ = call(tmp_path, "explain", str(tickets), "--set", "encoding=cp1252")
    assert code == 0
    for line in ('delimiter: ";"', "encoding: cp1252", "rows      train 30", "line 2: 'a'  'das Gebäude\\nNr. 0'", "line 4: 'b'"):
        assert line in text, text
    code, text, _ = call(tmp_path, "explain", str(tickets), "--set", "encoding=cp1252", "--set", "text=id", "--set", "malformed=leave_out", "--json")
    assert json.loads(text)["entry"] | {"text": "id", "malformed": "leave_out"} == json.loads(text)["entry"]


def test_a_data_set_of_the_project_is_explained_as_params_yaml_says(tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.replace("text: body", 'text: body, encoding: cp1252, delimiter: ";"'))
    code, text, error = call(tmp_path, "explain", "tickets", "--json")
    assert (code, json.loads(text)["rows"]) == (0, {"train": 30}), error
    (tmp_path / "params.yaml").write_text(PARAMS.replace("text: body", "text: body, encoding: cp1252"))
    code, _, error = call(tmp_path, "explain", "tickets")
    assert (code, error.count("\n")) == (3, 1)
    assert "expected a header with a column 'body', got 'id;body;topic'" in error
    assert "train.csv:1" in error


def test_dials_that_are_no_text_are_given_as_yaml(tmp_path: Path) -> None:
    rows = [{"text": f"a text {i}", "label": "ab"[i % 2], "part": ("learn", "dev_1")[i % 3 == 0]} for i in range(60)]
    (tmp_path / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dials = ("rename={learn: train, dev_1: dev}", "split_off={test: {share: 0.3}}", "where={label: a}", "split=part", "header=yes", "encoding=ascii")
    code, text, error = call(tmp_path, "explain", str(tmp_path / "topics.jsonl"), "--json", *(word for dial in dials for word in ("--set", dial)))
    assert code == 0, error
    entry = json.loads(text)["entry"]
    assert (entry["rename"], entry["split_off"], entry["where"]) == ({"learn": "train", "dev_1": "dev"}, {"test": {"share": 0.3}}, {"label": "a"})
    assert (json.loads(text)["rows"], entry["encoding"], entry["header"]) == ({"train": 20, "dev": 10}, "ascii", True)
    code, text, _ = call(tmp_path, "explain", str(tmp_path / "topics.jsonl"), "--json", "--set", "rename={learn: train, dev_1: dev}")
    assert json.loads(text)["rows"] == {"train": 60}, "nobody said that the column part names splits, and its name does not"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "ticket"), "unknown data set or file 'ticket'"),
        (("explain", "tickets", "--set", "text=id"), "--set is for files that no entry describes"),
        (("explain", "FILE", "--set", "text"), "--set takes key=value"),
        (("explain", "FILE", "--set", "txt=id"), "did you mean 'text'?"),
        (("explain", "FILE", "--set", "encoding=klingon"), "an encoding that Python knows"),
        (("status",), "is not a Recompress project"),
        (("fetch", "tickets"), "is not a Recompress project"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    code, text, error = call(tmp_path, *(str(tickets) if word == "FILE" else word for word in arguments))
    assert (code, text, error.count("\n"), message in error) == (2, "", 1, True), error
