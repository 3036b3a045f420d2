"""Spans of characters, as annotation tools export them, become words and tags; what cannot be tags is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks.text import places_of_words, words_of
from recompress.data.formats.readers import read_rows
from recompress.data.formats.spans import Span, read_spans, words_and_tags
from recompress.data.infer.looking import look_at
from recompress.errors import DataRefused

TEXT = "Asha Juma, went to Dar-es-Salaam 🌍 and Nairobi."
SPANS = ((0, 9, "PER"), (19, 32, "LOC"), (39, 46, "LOC"))
EXPECTED = ("B-PER", "I-PER", "O", "O", "O", "B-LOC", "O", "O", "B-LOC", "O")


def units(place: int) -> int:
    """A place in characters as browsers count it."""
    return len(TEXT[:place].encode("utf-16-le")) // 2


def label_studio(in_units: bool) -> list[dict[str, Any]]:
    """A task as Label Studio exports it (JSON), with a relation beside the labels and an annotation that was given up."""

    def region(i: int, start: int, end: int, kind: str) -> dict[str, Any]:
        a, b = (units(start), units(end)) if in_units else (start, end)
        value = {"start": a, "end": b, "text": TEXT[start:end], "labels": [kind]}
        return {"value": value, "id": f"r{i}", "from_name": "label", "to_name": "text", "type": "labels", "origin": "manual"}

    result = [*(region(i, *span) for i, span in enumerate(SPANS)), {"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right"}]
    annotations = [{"id": 7, "was_cancelled": True, "result": []}, {"id": 8, "completed_by": 1, "was_cancelled": False, "result": result}]
    return [{"id": 1, "annotations": annotations, "data": {"text": TEXT}, "meta": {}, "project": 1}]


EXPORTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "doccano": ("jsonl", [{"id": 1, "text": TEXT, "label": [list(span) for span in SPANS], "Comments": []}]),
    "doccano with relations": (
        "jsonl",
        [
            {
                "id": 1,
                "text": TEXT,
                "entities": [{"id": i, "label": k, "start_offset": a, "end_offset": b} for i, (a, b, k) in enumerate(SPANS)],
                "relations": [],
            }
        ],
    ),
    "Prodigy": (
        "jsonl",
        [
            {
                "text": TEXT,
                "_input_hash": 1,
                "tokens": [{"text": "Asha", "start": 0, "end": 4, "id": 0, "ws": True}],
                "spans": [{"start": a, "end": b, "token_start": 0, "token_end": 1, "label": k} for a, b, k in SPANS],
                "answer": "accept",
            }
        ],
    ),
    "Label Studio": ("json", label_studio(False)),
    "Label Studio in UTF-16 units": ("json", label_studio(True)),
    "Label Studio, small": ("json", [{"id": 1, "text": TEXT, "label": [{"start": a, "end": b, "text": TEXT[a:b], "labels": [k]} for a, b, k in SPANS]}]),
}


@pytest.mark.parametrize("tool", EXPORTS)
def test_every_tool_gives_the_same_words_and_tags(tool: str, tmp_path: Path) -> None:
    ending, rows = EXPORTS[tool]
    path = tmp_path / f"train.{ending}"
    path.write_text(json.dumps(rows, indent=2) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    understood = look_at(path)
    assert (understood.entry["tags"], understood.problems) == ("spans", ())
    assert [(row.words, row.labels) for row in understood.first] == [(words_of(TEXT), EXPECTED)]
    assert understood.labels == {"PER": 1, "LOC": 2}


BROKEN: list[tuple[Any, str]] = [
    ([[0, 7, "PER"]], "the span 0 to 7 (PER) begins or ends inside the word 'Juma'"),
    ([[0, 9, "PER"], [5, 9, "LOC"]], "the span 5 to 9 (LOC) overlaps another"),
    ([[0, 99, "PER"]], "holds nothing of a text of 47 characters"),
    ([[4, 5, "PER"]], "holds nothing of a text"),
    ([[9, 0, "PER"]], "holds nothing of a text"),
    ([["a", 4, "PER"]], "expected start and end as numbers of characters"),
    ([[0, 4, "FIRST NAME"]], "has no type that can be part of a tag"),
    ([{"start": 0, "end": 4, "labels": ["PER", "LOC"]}], "has 2 labels"),
    ([{"start": 0, "end": 4, "text": "Juma", "label": "PER"}], "says 'Juma', but the text has 'Asha' there"),
    ([{"result": []}, {"result": []}], "2 annotations; one is expected"),
    ([5], "'5' is no span"),
    ("B-PER", "expected a list of spans"),
    (None, "expected a list of spans"),
]


@pytest.mark.parametrize(("spans", "what"), BROKEN)
def test_what_cannot_be_tags_is_named_by_line_and_left_out_when_said(spans: Any, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": TEXT, "label": label}) + "\n" for label in ([list(SPANS[0])], spans, [])))
    with pytest.raises(DataRefused) as refused:
        read_rows(path, "jsonl", benchmark="token-classification", tags="spans")
    assert what in str(refused.value)
    assert str(refused.value).endswith("a.jsonl:2)")
    reading = read_rows(path, "jsonl", benchmark="token-classification", tags="spans", strict=False)
    assert [row.line for row in reading.rows] == [1, 3]


def test_spaces_at_the_ends_of_a_span_and_a_span_that_is_there_twice_harm_nobody() -> None:
    assert words_and_tags(TEXT, [Span(0, 5, "PER"), Span(4, 9, "PER")][:1])[1][0] == "B-PER"
    assert words_and_tags(TEXT, [Span(0, 9, "PER"), Span(0, 9, "PER")])[1][:3] == ("B-PER", "I-PER", "O")


TEXTS = st.text(st.sampled_from("ab ị\u0301-'.,🌍\n"), min_size=1, max_size=20)


@given(TEXTS, st.data())
def test_spans_of_whole_words_come_back(text: str, data: st.DataObject) -> None:
    places = places_of_words(text)
    assert tuple(text[start:end] for start, end in places) == words_of(text)
    spans, first = [], 0
    while first < len(places):
        last = data.draw(st.integers(first, len(places) - 1))
        if data.draw(st.booleans()):
            spans.append(Span(places[first][0], places[last][1], data.draw(st.sampled_from(["X", "Y"]))))
        first = last + 1
    words, tags = words_and_tags(text, read_spans([list(span) for span in spans], text))
    assert words == words_of(text)
    begins = [i for i, tag in enumerate(tags) if tag[0] == "B"]
    assert [(places[i][0], tags[i][2:]) for i in begins] == [(span.start, span.type) for span in spans]
    assert sum(tag != "O" for tag in tags) == sum(span.start <= start < span.end for span in spans for start, _ in places)
