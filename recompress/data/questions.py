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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from recompress.benchmarks.answers import NOTHING, Span, is_written, read, written
from recompress.benchmarks.question_answering import QuestionAnswering
from recompress.data.excerpt import cut
from recompress.integrity.digest import sha256_bytes

QUESTION_ANSWERING = QuestionAnswering.name
KINDS = ("unanswerable", "answerable")
"""What a question is called that has no answer, or one."""
TITLE, CONTEXT, QUESTION, ANSWERS = "title", "context", "question", "answers"
"""What SQuAD calls an article's name, a text, a question and its answers."""
QUESTIONS = ["id", TITLE, "is_impossible", "answer_start"]
"""Columns that say something of a question, where a table has them."""
LONGEST_NAME = 80
"""Characters of a group's name; one that is longer, a whole text for example, is called by its digest."""
NEAR = 40
"""Characters of the context that a message shows."""


class NoQuestion(ValueError):
    """Why a record is no question about a text, in words."""


class Asked(NamedTuple):
    """A question as an example has it."""

    words: tuple[str, str]
    """The question and the text."""
    labels: tuple[str, ...]
    group: str
    """The article, or the text, where nothing else is named."""


class HasWords(Protocol):
    """An example, or a row of a reader."""

    @property
    def words(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...


def is_question(row: HasWords) -> bool:
    """Whether a row is a question and a text with answers, and not two words with a tag each."""
    return len(row.words) == 2 and bool(row.labels) and all(map(is_written, row.labels))


def is_squad(whole: Any) -> bool:
    """Whether a JSON document is SQuAD's."""
    data = whole.get("data") if isinstance(whole, Mapping) else None
    return isinstance(data, list) and bool(data) and all(isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list) for article in data)


def looks_like_squad(text: str) -> bool:
    """The same of a document that nobody has read yet."""
    if '"paragraphs"' not in text:
        return False
    with suppress(ValueError, RecursionError):
        return is_squad(json.loads(text))
    return False


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


def question_of(record: Mapping[str, Any], question: Any, context: Any, answers: Any, start: Any = None) -> Asked:
    """Question and text with the right answers as labels, and what it belongs to. Raises ``NoQuestion``."""
    name = _name_of(record)
    if not isinstance(question, str) or not question.strip() or not isinstance(context, str) or not context.strip():
        raise NoQuestion(f"{name} lacks its question or the text that it is asked about: {cut(json.dumps(dict(record), ensure_ascii=False, default=str))}")
    impossible = str(record.get("is_impossible", "")).lower() == "true"
    spans = [] if impossible else _spans(answers, start, context, name)
    for span in spans:
        _check(span, context, name)
    labels = tuple(dict.fromkeys(map(written, spans))) or (NOTHING,)
    return Asked((question, context), labels, short(str(record.get(TITLE) or context)))


def short(name: str) -> str:
    """A name that fits into a list: a long one is called by its digest."""
    return name if len(name) <= LONGEST_NAME and "\n" not in name else sha256_bytes(name.encode("utf-8", "surrogatepass"))[:16]


def answers_stand(records: Sequence[Mapping[str, Any]], question: str, context: str, answers: str, start: str | None) -> bool:
    """Whether these columns are questions, texts, and answers that stand in them, in nine rows of ten."""
    asked = []
    for record in records:
        with suppress(NoQuestion):
            asked.append(question_of(record, record.get(question), record.get(context), record.get(answers), record.get(start) if start else None))
    return any(any(one.labels) for one in asked) and len(asked) >= 0.9 * len(records)


def _name_of(record: Mapping[str, Any]) -> str:
    return f"question {str(record['id'])!r}" if record.get("id") not in (None, "") else "the question"


def _spans(answers: Any, start: Any, context: str, name: str) -> list[Span]:
    if isinstance(answers, str) and answers.lstrip()[:1] in ("{", "["):
        with suppress(ValueError):  # an answer may begin with a bracket
            answers = json.loads(answers)
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


def moved(labels: Sequence[str], context: str, clean_context: str, clean: Callable[[str], str]) -> tuple[str, ...]:
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
