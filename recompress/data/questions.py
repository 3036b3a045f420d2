"""Questions about a text, and the parts of it that answer them: SQuAD's JSON, and records with a column for each of the three.

    SQuAD       {"data": [{"title": …, "paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": [{"text": …, "answer_start": …}]}]}]}]}
    records     question, context, and answers as {"text": […], "answer_start": […]} (the datasets library), as a list of such pairs, as JSON of either in a field of a
                table, or as the answer's text alone, where ``answer_start`` names the column of its place or the text stands in the context once

No answer, or SQuAD 2.0's ``is_impossible``, says that the text does not answer the question. Places count characters (code points). An answer that does not stand
where its place says is named with the question's id, and never moved: nobody knows which of the two was meant.

What belongs together is an article (``title``), or all questions about one text, unless ``group`` names something else.
Source: Rajpurkar et al. 2016, arXiv:1606.05250; Rajpurkar et al. 2018, arXiv:1806.03822.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recompress.benchmarks.answers import NOTHING, Span, read, written
from recompress.benchmarks.question_answering import QuestionAnswering
from recompress.data.reading import cut
from recompress.errors import DataRefused
from recompress.integrity.digest import sha256_bytes

TITLE = "title"
"""The column that names an article, where there is one and nothing else is named."""
NEAR = 40
"""Characters of the context that a message shows."""


class NoQuestion(ValueError):
    """Why a record is no question about a text, in words."""


def articles(whole: Any) -> bool:
    """Whether a JSON document is SQuAD's."""
    data = whole.get("data") if isinstance(whole, Mapping) else None
    return isinstance(data, list) and bool(data) and all(isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list) for article in data)


def flattened(articles: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The questions of SQuAD's articles as records, with the number of each (from 1)."""
    number = 0
    for place, article in enumerate(articles, 1):
        title = article.get(TITLE) or f"article {place}"
        for paragraph in article["paragraphs"]:
            asked = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
            for question in asked if isinstance(asked, list) else [None]:
                number += 1
                whole = question if isinstance(question, Mapping) else {}
                yield number, {TITLE: title, "context": paragraph.get("context") if isinstance(paragraph, Mapping) else None, **whole}


def question_of(record: Mapping[str, Any], question: Any, context: Any, answers: Any, start: Any, default_group: bool) -> tuple[tuple[str, str], tuple[str, ...], str]:
    """Question and text, the right answers as labels, and the group where none was named. Raises ``NoQuestion``."""
    name = _name_of(record)
    if not isinstance(question, str) or not question.strip() or not isinstance(context, str) or not context.strip():
        raise NoQuestion(f"{name} lacks its question or the text that it is asked about: {cut(json.dumps(dict(record), ensure_ascii=False, default=str))}")
    impossible = str(record.get("is_impossible", "")).lower() == "true"
    spans = [] if impossible else _spans(answers, start, context, name)
    for span in spans:
        _check(span, context, name)
    labels = tuple(dict.fromkeys(map(written, spans))) or (NOTHING,)
    group = str(record.get(TITLE) or sha256_bytes(context.encode("utf-8", "surrogatepass"))[:16]) if default_group else ""
    return (question, context), labels, group


def _name_of(record: Mapping[str, Any]) -> str:
    return f"question {str(record['id'])!r}" if record.get("id") not in (None, "") else "the question"


def _spans(answers: Any, start: Any, context: str, name: str) -> list[Span]:
    if isinstance(answers, str) and answers.lstrip()[:1] in ("{", "["):
        try:
            answers = json.loads(answers)
        except ValueError:
            pass  # an answer that begins with a bracket
    if answers is None or answers == "":
        return []
    if isinstance(answers, str):
        return [_placed(answers, start, context, name)]
    if isinstance(answers, Mapping):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list):
            texts, starts = [texts], [starts]
        if len(texts) != len(starts):
            raise NoQuestion(f"{name} has {len(texts)} answers and {len(starts)} places")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(answers, Sequence) and all(isinstance(answer, Mapping) for answer in answers):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in answers]
    else:
        raise NoQuestion(f"{name} has answers that are no pairs of text and answer_start: {cut(json.dumps(answers, ensure_ascii=False, default=str))}")
    return [_placed(text, place, context, name) for text, place in pairs]


def _placed(text: Any, start: Any, context: str, name: str) -> Span:
    if not isinstance(text, str) or not text.strip():
        raise NoQuestion(f"{name} has an answer without text; leave answers empty where the text has none")
    if start is None or start == "":
        if context.count(text) != 1:
            raise NoQuestion(f"the answer {text!r} of {name} stands {context.count(text)} times in its text; answer_start: says which column has its place")
        return Span(context.index(text), text)
    if not str(start).isdecimal():
        raise NoQuestion(f"the place of the answer {cut(text)} of {name} is a number of characters, got {start!r}")
    return Span(int(str(start)), text)


def _check(span: Span, context: str, name: str) -> None:
    if context[span.start : span.end] == span.text:
        return
    places = [i for i in range(len(context)) if context.startswith(span.text, i)]
    there = f"it stands at {', '.join(map(str, places[:3]))}" if places else "it does not stand in the text at all"
    found = context[span.start : span.start + min(NEAR, max(1, len(span.text)))]
    raise NoQuestion(f"the answer {cut(span.text)} of {name} should begin at character {span.start}, where {cut(found)} stands; {there}")


def moved(labels: Sequence[str], context: str, clean_context: str, clean: Any) -> tuple[str, ...]:
    """The answers in a context whose characters were repaired by ``clean(text)``; those that are not to be found any more are left out."""
    if context == clean_context:
        return tuple(labels)
    kept = []
    for span in map(read, labels):
        if span is None:
            kept.append(NOTHING)
            continue
        text, start = clean(span.text), len(clean(context[: span.start]))
        places = [i for i in range(len(clean_context)) if text and clean_context.startswith(text, i)]
        if places:
            kept.append(written(Span(min(places, key=lambda place: abs(place - start)), text)))
    return tuple(dict.fromkeys(kept))


def check_labels(labels: Sequence[str], where: str) -> None:
    """Raises ``DataRefused`` for labels that are no answers."""
    if not labels:
        raise DataRefused(f"{where} has no answer; one empty label says that there is none")
    for label in labels:
        read(label)


BENCHMARK = QuestionAnswering.name
