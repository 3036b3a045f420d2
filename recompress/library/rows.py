"""Examples as people have them in Python: texts, pairs of text and label, or words and tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from recompress.benchmarks import Benchmark, Example, benchmark_of
from recompress.data.questions import NoQuestion, question_of
from recompress.errors import InputError
from recompress.library.load import Model
from recompress.models.heads import head_of

Rows = Iterable[Any]
"""Each a text, ``(text, label)``, ``(words, tags)``, ``{"text": …, "label": …}``, ``{"words": …, "tags": …}``, ``{"question": …, "context": …, "answers": …}`` (with
answers as ``recompress.data.questions`` reads them) or an ``Example``."""
PROBES = 8


def examples_of(model: Model, rows: Rows, what: str) -> list[Example]:
    """Raises ``InputError`` that names the first row which is none of these, or has a label that the model does not know."""
    benchmark = benchmark_of(model.info)
    return [_example(benchmark, model.info.labels, row, f"row {number} of {what}") for number, row in enumerate(rows, start=1)]


def _example(benchmark: Benchmark, labels: Sequence[str], row: Any, where: str) -> Example:
    if isinstance(row, Example):
        return row
    if benchmark.head.finds_spans:
        return _question(row, where)
    if isinstance(row, dict):
        text, label = row.get("text", row.get("words")), row.get("label", row.get("tags"))
    elif isinstance(row, str):
        text, label = row, None
    else:
        text, label = row if isinstance(row, (tuple, list)) and len(row) == 2 else (None, None)
    tagged = benchmark.head.reads_words and not isinstance(text, str)
    if not isinstance(text, str) and not (tagged and isinstance(text, Sequence) and all(isinstance(word, str) for word in text)):
        raise InputError(f"{where} should be a text, (text, label) or (words, tags), got {str(row)[:80]!r}")
    words = tuple(text) if tagged else benchmark.split(str(text))
    given = () if label is None else tuple(map(str, label)) if benchmark.head.reads_words else (str(label),)
    if benchmark.head.reads_words and given and len(given) != len(words):
        raise InputError(f"{where} has {len(words)} words and {len(given)} tags; each word has one")
    if unknown := next((one for one in given if one not in labels), None):
        raise InputError(f"{where} has the label {unknown!r}, which the model does not know; it knows {', '.join(labels) or 'none'}")
    return Example(words, given)


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
