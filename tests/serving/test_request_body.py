"""What a request's body may be: the forms that MLflow's server takes, and nothing that would have to be guessed."""

from __future__ import annotations

import json

import pytest

from recompress.serving.limits import Limits
from recompress.serving.refusal import Refusal
from recompress.serving.request_body import rows_of

TEXT, PAIR = ("text",), ("text", "text_pair")
TWO = [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}]
SPLIT = {"columns": ["text_pair", "id", "text"], "data": [["b", 1, "a"], ["d", 2, "c"]]}


def read(value: object, columns: tuple[str, ...] = TEXT, **limits: int) -> object:
    return rows_of(json.dumps(value).encode(), columns, Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": ["a", "b"]},
        {"instances": ["a", "b"]},
        {"inputs": [{"text": "a"}, {"text": "b"}]},
        {"inputs": {"text": ["a", "b"]}},
        {"dataframe_records": [{"text": "a", "id": 3}, {"text": "b"}]},
        {"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]], "index": [0, 1]}},
        {"dataframe_split": {"columns": [0], "data": [["a"], ["b"]]}},
        {"inputs": ["a", "b"], "params": {}},
    ],
    ids=str,
)
def test_every_form_gives_the_same_texts(value: object) -> None:
    rows = read(value)
    assert [row if isinstance(row, str) else row["text"] for row in rows] == ["a", "b"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "value", [{"inputs": TWO}, {"dataframe_records": TWO}, {"dataframe_split": SPLIT}, {"inputs": {"text": ["a", "c"], "text_pair": ["b", "d"]}}], ids=str
)
def test_every_form_gives_the_same_pairs(value: object) -> None:
    assert read(value, PAIR) == TWO


def test_a_text_alone_and_no_text() -> None:
    assert read({"inputs": "a"}) == ["a"]
    assert read({"inputs": {"text": "a", "text_pair": "b"}}, PAIR) == TWO[:1]
    assert read({"inputs": []}) == read({"dataframe_records": []}) == []
    assert rows_of(b'\xef\xbb\xbf{"inputs": ["a"]}', TEXT, Limits()) == ["a"], "a byte order mark is no part of it"


@pytest.mark.parametrize("wrong, kind", [(3, "a number"), (0.5, "a number"), (True, "a boolean"), (None, "null"), (["a"], "a list"), ([["a"]], "a list")])
def test_what_is_no_text_is_named_by_its_row(wrong: object, kind: str) -> None:
    for value in ({"inputs": ["a", wrong]}, {"dataframe_records": [{"text": "a"}, {"text": wrong}]}, {"inputs": {"text": ["a", wrong]}}):
        with pytest.raises(Refusal, match=f"row 2 is {kind} and not|text of row 2 is {kind} and not") as refusal:
            read(value)
        assert refusal.value.status == 400
    with pytest.raises(Refusal, match=f"row 2 is {kind} and not an object with text and text_pair"):
        read({"inputs": [TWO[0], wrong]}, PAIR)


@pytest.mark.parametrize(
    "value, line",
    [
        ([], "the body is a list and not an object"),
        (None, "the body is null and not an object"),
        ({}, "none of inputs, instances, dataframe_records, dataframe_split"),
        ({"inputs": ["a"], "instances": ["a"]}, "the body names inputs and instances"),
        ({"inputs": 3}, "inputs is a number and not a list of rows"),
        ({"dataframe_records": "a"}, "dataframe_records is a text and not a list"),
        ({"dataframe_records": [{"id": "1"}]}, "row 1 has no text; this model is asked with text"),
        ({"dataframe_split": {"columns": ["id"], "data": [["1"]]}}, "columns has no text"),
        ({"dataframe_split": {"columns": ["text"], "data": [["1", "2"]]}}, "row 1 of data is no list with a value for each of the 1 columns"),
        ({"dataframe_split": [["a"]]}, "dataframe_split is"),
        ({"inputs": ["a"], "params": {"threshold": 0.5}}, "this model takes no params"),
    ],
    ids=str,
)
def test_another_body_is_refused_by_what_it_lacks(value: object, line: str) -> None:
    with pytest.raises(Refusal, match=line) as refusal:
        read(value)
    assert refusal.value.status == 400


def test_lists_of_columns_have_to_be_as_long() -> None:
    with pytest.raises(Refusal, match="as long"):
        read({"inputs": {"text": ["a"], "text_pair": ["b", "c"]}}, PAIR)
    with pytest.raises(Refusal, match="row 1 has no text_pair"):
        read({"inputs": [{"text": "a"}]}, PAIR)


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": ["a"] * 5},
        {"inputs": {"text": ["a"] * 5}},
        {"dataframe_split": {"columns": ["text"], "data": [["a"]] * 5}},
        {"dataframe_records": [{"text": "a"}] * 5},
    ],
    ids=str,
)
def test_rows_are_counted_in_every_form(value: object) -> None:
    assert len(read(value, rows=5)) == 5  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="the request has 5 rows, and this server takes 4 at most") as refusal:
        read(value, rows=4)
    assert refusal.value.status == 413


def test_a_long_row_is_named() -> None:
    assert read({"inputs": ["a" * 10]}, characters=10)
    with pytest.raises(Refusal, match="row 2 has 11 characters, and this server takes 10 at most") as refusal:
        read({"inputs": ["", "a" * 11]}, characters=10)
    assert refusal.value.status == 413
    with pytest.raises(Refusal, match="text_pair of row 1 has 11 characters"):
        read({"inputs": [{"text": "", "text_pair": "a" * 11}]}, PAIR, characters=10)


@pytest.mark.parametrize(
    "body, line",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"inputs": [' + b"[" * 10_000 + b"]" * 10_000 + b"]}", "nested too deeply"),
        (b'{"inputs": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", "nested too deeply"),
        (b'{"inputs": [' + b"9" * 10_000 + b"]}", "too many digits"),
        (b'{"inputs": [1e400]}', "row 1 is a number"),
        (b'{"inputs": [NaN]}', "NaN is not JSON"),
        (b'{"inputs": [-Infinity]}', "-Infinity is not JSON"),
        (b'{"inputs": ["\xff"]}', "not UTF-8: byte 13 is 0xff"),
        (b'{"inputs": ["\xed\xa0\xbd"]}', "not UTF-8"),
        ('{"inputs": ["a"]}'.encode("utf-16"), "not UTF-8"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bytes_that_are_no_json_are_a_400(body: bytes, line: str) -> None:
    with pytest.raises(Refusal, match=line) as refusal:
        rows_of(body, TEXT, Limits())
    assert refusal.value.status == 400
