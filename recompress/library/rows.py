"""Examples as people have them in Python: texts or pairs of texts with what is right for them, or words and tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from recompress.benchmarks import Benchmark, Example, benchmark_of
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.data.labels import settled
from recompress.data.questions import NoQuestion, question_of
from recompress.errors import InputError
from recompress.library.load import Model
from recompress.models.heads import head_of

Rows = Iterable[Any]
"""Each a text, ``(text, label)``, ``(words, tags)``, ``{"text": …, "label": …}``, ``{"words": …, "tags": …}`` or an ``Example``. Of several labels ``label`` is
a list, of a regression a number, of what is to be written the right text or a list of such; a pair is ``((text, text_pair), label)`` or ``{"text": …, "text_pair": …, "label": …}``, a question ``{"question": …,
"context": …, "answers": …}`` (with answers as ``recompress.data.questions`` reads them)."""
PROBES = 8
LABELLED = {
    "label": "(text, label)",
    "tags": "(words, tags)",
    "labels": "(text, [label, …])",
    "number": "(text, number)",
    "span": "{'question': …, 'context': …, 'answers': …}",
    "text": "(text, right text)",
}
"""A row that says what is right, by what that is."""


def examples_of(model: Model, rows: Rows, what: str, *, labelled: bool = False) -> list[Example]:
    """Raises ``InputError`` for what is no list of rows, and names the first row which is none of these, has a label that the model does not know, or none where
    it has to be ``labelled``."""
    benchmark = benchmark_of(model.info)
    check_several(rows, what)
    examples = [_example(benchmark, model.info.labels, row, f"row {number} of {what}") for number, row in enumerate(rows, start=1)]
    needed = benchmark.head.labelled and benchmark.head.answer != "text"  # what is written says something without a right text too
    if labelled and needed and (bare := next((i for i, example in enumerate(examples, start=1) if not example.labels), None)) is not None:
        raise InputError(
            f"row {bare} of {what} has no label: {' '.join(examples[bare - 1].words)[:60]!r}; give {LABELLED[benchmark.head.answer]}, or leave it out"
        )
    return examples


def check_several(rows: Any, what: str) -> None:
    """Raises ``InputError`` for what is no list of rows, but can be gone through all the same: the letters of a text, the names of columns."""
    if isinstance(rows, (str, bytes, PurePath)):
        raise InputError(f"{what} should be a list, got {rows!r:.60}; give [text, …], and of a file what stands in it: Path(…).read_text().splitlines()")
    if isinstance(rows, Mapping):
        raise InputError(
            f"{what} should be a list, got a mapping of {', '.join(map(str, rows))[:60] or 'nothing'}; give a list of such rows, one for each text"
        )
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        raise InputError(f"{what} should be a list, got a {type(rows).__name__}, which gives the names of its columns; give frame.to_dict('records')")
    if not isinstance(rows, Iterable):
        raise InputError(f"{what} should be a list, got {rows!r:.60}; give [text, …], or leave it out")


def _example(benchmark: Benchmark, labels: Sequence[str], row: Any, where: str) -> Example:
    if isinstance(row, Example):
        return row
    if benchmark.head.finds_spans or (benchmark.head.answer == "text" and isinstance(row, dict) and "question" in row):
        return _question(row, where)
    if isinstance(row, dict):
        text, label = row.get("text", row.get("words")), row.get("label", row.get("labels", row.get("tags")))
        text = (text, row["text_pair"]) if "text_pair" in row else text
    elif isinstance(row, str):
        text, label = row, None
    else:
        text, label = row if isinstance(row, (tuple, list)) and len(row) == 2 else (None, None)
    head = benchmark.head
    if head.texts > 1 and not isinstance(row, dict) and label is not None and isinstance(text, str) and isinstance(label, str):
        text, label = (text, label), None  # a pair without a label
    if head.texts > 1:
        return _pair(text, label, labels, where)
    if head.answer in ("labels", "number", "text"):
        if not isinstance(text, str):
            raise InputError(f"{where} should be a text or (text, label), got {str(row)[:80]!r}")
        return Example((text,), _said(label, labels, head.answer, where))
    tagged = head.reads_words and not isinstance(text, str)
    if not isinstance(text, str) and not (tagged and isinstance(text, Sequence) and all(isinstance(word, str) for word in text)):
        raise InputError(f"{where} should be a text, (text, label) or (words, tags), got {str(row)[:80]!r}")
    words = tuple(text) if tagged else benchmark.split(str(text))
    given = () if label is None else tuple(map(str, label)) if benchmark.head.reads_words else (str(label),)
    if benchmark.head.reads_words and given and len(given) != len(words):
        raise InputError(f"{where} has {len(words)} words and {len(given)} tags; each word has one")
    _check_known(given, labels, where)
    return Example(words, given)


def _pair(texts: Any, label: Any, labels: Sequence[str], where: str) -> Example:
    if isinstance(texts, str) or not isinstance(texts, Sequence) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where} should be a pair of texts, or ((text, text_pair), label), got {str(texts)[:80]!r}")
    given = () if label is None else (str(label),)
    _check_known(given, labels, where)
    return Example(tuple(texts), given)


def _said(label: Any, labels: Sequence[str], answer: str, where: str) -> tuple[str, ...]:
    """Several labels, a number, or right texts, as an example holds them."""
    if label is None:
        return ()
    if answer == "number":
        try:
            return settled([repr(float(label))], "number")
        except (TypeError, ValueError):
            raise InputError(f"{where} should have a number, got {str(label)[:80]!r}") from None
    if answer == "text":
        return (label,) if isinstance(label, str) else tuple(map(str, label))
    if isinstance(label, str) or not isinstance(label, Iterable):
        raise InputError(f"{where} should have a list of labels, empty where none holds, got {str(label)[:80]!r}")
    given = settled(map(str, label), "labels")
    _check_known([one for one in given if one != NO_LABEL_HOLDS], labels, where)
    return given


def _check_known(given: Sequence[str], labels: Sequence[str], where: str) -> None:
    if unknown := next((one for one in given if one not in labels), None):
        raise InputError(f"{where} has the label {unknown!r}, which the model does not know; it knows {', '.join(labels) or 'none'}")


def _question(row: Any, where: str) -> Example:
    if not isinstance(row, dict):
        raise InputError(f"{where} should be {{'question': …, 'context': …, 'answers': …}}, got {str(row)[:80]!r}")
    try:
        asked = question_of(row, row.get("question"), row.get("context"), row.get("answers"), row.get("answer_start"))
    except NoQuestion as error:
        raise InputError(f"{where}: {error}") from None
    return Example(asked.words, asked.labels if "answers" in row else (), str(row.get("slice", "all")), asked.group)


def probes(model: Model) -> list[Example]:
    """Words of the model's own vocabulary, for methods that look at no text: the saved model is compared with the one in memory on them."""
    vocabulary = sorted(model.tokenizer.get_vocab(), key=len, reverse=True)
    words = [word.strip("#▁Ġ") for word in vocabulary[: PROBES * 4]]
    head, parts = head_of(model.info.benchmark), [words[i : i + 4] for i in range(0, len(words), 4)]
    if head.finds_spans:
        return [Example((words[0], " ".join(part))) for part in parts]
    return [Example(tuple(part)) if head.reads_words else Example((" ".join(part),)) for part in parts]
