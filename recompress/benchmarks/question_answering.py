"""Extractive question answering: the part of a text that answers a question, or that there is none; judged by exact match and F1 as SQuAD defines them.

    answer      argmax over spans of begin[i] + end[j],  i <= j < i + longest_answer, over all windows of the text
    nothing     where  null - answer > threshold,        null: begin[0] + end[0], the least over windows; token 0 is the first of the sequence

An example has two texts, the question and the text that is read, and as labels its right answers, each as ``177:Denver Broncos`` (its first character and its
text); one empty label says that there is no answer. Texts that are longer than a model reads are read in windows that overlap (``recompress.benchmarks.windows``), so
that an example has several features. F1 is counted in millionths, so that sums do not depend on their order (``recompress.benchmarks.answers`` has its formula).

Source: Rajpurkar et al. 2018, arXiv:1806.03822 (no answer, and its threshold); Devlin et al. 2019, arXiv:1810.04805, sections 4.2 and 4.3 (head, score of a span, null).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float, Int, Num
from pydantic import Field

from recompress.benchmarks.answers import NOTHING, Normalisation, Span, best, read, text_of, written
from recompress.benchmarks.pieces import NEVER, at_tokens, by_piece, null_of
from recompress.benchmarks.scores import NO_LABEL, Feature, ratio, scores
from recompress.benchmarks.windows import Found, best_span, positions_of, windows_of
from recompress.errors import DataRefused
from recompress.models.heads import SPANS
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example

MICRO = 1e-6


class Answering(Settings):
    """How texts are cut into windows, and which answer is taken."""

    stride: Annotated[int, Field(ge=0)] = 128
    """Tokens of the text that a window shares with the one before it."""
    longest_answer: Annotated[int, Field(ge=1)] = 30
    """The most tokens of an answer."""
    threshold: float | None = 0.0
    """How much likelier "no answer" has to be than the best one, in logits, to be taken; null where every question has an answer."""
    normalisation: Normalisation = "squad"
    """What does not count in comparing answers: ``squad``, case, ASCII punctuation and English articles; ``unicode``, for other languages, case and all punctuation."""


class QuestionAnswering:
    """Reading comprehension. The units of a window are the first token of the sequence, which stands for no answer, and the tokens of the text; each has two logits."""

    name = "question-answering"
    primary = "f1"
    head = SPANS
    Dials = Answering

    def __init__(self, dials: Answering | None = None) -> None:
        self.dials = dials or Answering()

    @property
    def answering(self) -> dict[str, Any]:
        """The dials as plain values, for a model to name."""
        return self.dials.model_dump(mode="json")

    def split(self, text: str) -> tuple[str, ...]:
        """A text that nobody asks anything about."""
        return ("", text)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """The windows of all examples, one after the other, each with the number of its ``example``; see ``windows_of``. ``labels`` are the positions of the first
        right answer's first and last token, 0 where it is not in the window as a whole. Raises ``DataRefused`` for examples that are no question and text."""
        for example in examples:
            if len(example.words) != 2:
                raise DataRefused(f"question answering needs a question and a text, got {len(example.words)} texts: {' '.join(example.words)[:60]!r}")
        questions, texts = ([example.words[i] for example in examples] for i in range(2))
        windows = windows_of(tokenizer, questions, texts, max_length, self.dials.stride)
        return [
            {
                **window,
                "labels": _labels(window, example),
                "units": [0, *range(window["context"][0], window["context"][0] + len(window["begins"]))],
                "example": [i],
            }
            for i, (example, parts) in enumerate(zip(examples, windows, strict=True))
            for window in parts
        ]

    def unit_logits(self, logits: Float[np.ndarray, "length 2"], feature: Feature) -> Float[np.ndarray, "units 2"]:
        return np.asarray(logits)[np.asarray(feature["units"], dtype=np.int64)]

    def decide(self, unit_logits: Float[np.ndarray, "units 2"], labels: Sequence[str]) -> tuple[str, ...]:
        """The first and the last token of the answer in one window alone, counted among those of its text; nothing where there is none. ``answers`` looks at all."""
        found = self._found(unit_logits, None)
        return (NOTHING,) if found is None or self._is_nothing(null_of(unit_logits), found.score) else (str(found.first), str(found.last))

    def answers(self, units: Sequence[Float[np.ndarray, "units 2"]], features: Sequence[Feature], examples: Sequence[Example]) -> list[tuple[str, ...]]:
        """The answer to each example, over all of its windows, written as labels are."""
        return [(written(answer.span),) for answer in self.best_answers(units, features, examples)]

    def best_answers(self, units: Sequence[Float[np.ndarray, "units 2"]], features: Sequence[Feature], examples: Sequence[Example]) -> list[Answer]:
        """The same with a probability: that of its beginning times that of its end, in the window that it is found in."""
        answers = []
        for example, windows in zip(examples, _by_example(features, len(examples)), strict=True):
            null = min(windows, key=lambda i: null_of(units[i]))
            found = [(found, i) for i in windows if (found := self._found(units[i], features[i])) is not None]
            best_one, place = max(found, key=lambda one: one[0].score, default=(None, null))
            if best_one is None or self._is_nothing(null_of(units[null]), best_one.score):
                answers.append(Answer(None, _probability(units[null], 0, 0)))
                continue
            begin, end = features[place]["begins"][best_one.first], features[place]["ends"][best_one.last]
            answers.append(Answer(Span(begin, example.words[1][begin:end]), _probability(units[place], best_one.first + 1, best_one.last + 1)))
        return answers

    def _found(self, units: Float[np.ndarray, "units 2"], feature: Feature | None) -> Found | None:
        begin, end = units[1:, 0], units[1:, 1]
        if feature is not None:  # a token of nothing but spaces is no answer
            seen = np.asarray(feature["ends"]) > np.asarray(feature["begins"])
            begin, end = (np.where(seen, logits, NEVER) for logits in (begin, end))
        return best_span(begin, end, self.dials.longest_answer)

    def _is_nothing(self, null: float, score: float) -> bool:
        return self.dials.threshold is not None and null - score > self.dials.threshold

    def by_example(
        self, units: Sequence[Float[np.ndarray, "units 2"]], features: Sequence[Feature], examples: Sequence[Example]
    ) -> list[Float[np.ndarray, "pieces 2"]]:
        """What a teacher says about each example, whatever its tokens; see ``recompress.benchmarks.pieces``."""
        windows = _by_example(features, len(examples))
        return [by_piece(example.words[1], [(units[i], features[i]) for i in places]) for example, places in zip(examples, windows, strict=True)]

    def for_features(
        self, taught: Sequence[Float[np.ndarray, "pieces 2"]], features: Sequence[Feature], examples: Sequence[Example]
    ) -> list[Float[np.ndarray, "length 2"]]:
        """The other way round: for each window of a student what ``by_example`` gave, at the student's tokens."""
        return [at_tokens(examples[i].words[1], taught[i], feature) for feature in features for i in feature["example"]]

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("answerable", "answerable.exact", "answerable.f1_millionths", "unanswerable", "unanswerable.found", "answered_with_nothing")

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples 6"]:
        """What an answer is worth beside the right ones. Raises ``DataRefused`` for a question without any label, and for what is no answer."""
        table = np.zeros((len(references), 6), dtype=np.int64)
        for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
            if not reference or len(prediction) != 1:
                raise DataRefused(f"example {row} needs its right answers and one prediction, got {list(reference)!r} and {list(prediction)!r}")
            rights, answered = [text_of(label) for label in reference], text_of(prediction[0])
            exact, f1 = best(rights, answered, self.dials.normalisation)
            table[row, 5] = best([NOTHING], answered, self.dials.normalisation)[0]
            if any(label != NOTHING for label in reference):
                table[row, :3] = 1, exact, round(f1 / MICRO)
            else:
                table[row, 3:5] = 1, exact
        return table

    def metrics(self, totals: Num[np.ndarray, "*draws 6"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        """Shares from 0 to 1. ``exact_match`` and ``f1`` are over all questions; where some have no answer, ``no_answer_recall`` is the share of these that were answered
        with nothing (what SQuAD's script calls NoAns_f1), and ``no_answer_f1`` that and the precision of it in one."""
        there, exact, f1, none, found, given = (np.asarray(totals[..., i], dtype=np.float64) for i in range(6))
        of_nothing = scores(found, given, none)
        return {
            "f1": ratio(f1 * MICRO + found, there + none),
            "exact_match": ratio(exact + found, there + none),
            "answer_f1": ratio(f1 * MICRO, there),
            "answer_exact_match": ratio(exact, there),
            "no_answer_f1": np.where(none > 0, of_nothing["f1"], np.nan),
            "no_answer_precision": np.where(none > 0, of_nothing["precision"], np.nan),
            "no_answer_recall": of_nothing["recall"],
        }

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Questions with an answer and those without, where there are both."""
        there, exact, f1, none, found, _ = map(float, totals)
        if not (there and none):
            return {}
        return {
            "with an answer": {"f1": f1 * MICRO / there, "exact_match": exact / there, "support": there},
            "without an answer": {"f1": found / none, "exact_match": found / none, "support": none},
        }


class Answer:
    """An answer as it is served: where it stands (``None`` for no answer), and how likely it is."""

    def __init__(self, span: Span | None, probability: float) -> None:
        self.span = span
        self.probability = probability


def _labels(window: Feature, example: Example) -> list[int]:
    return list(positions_of(window, read(example.labels[0]))) if example.labels else [NO_LABEL, NO_LABEL]


def _probability(units: Float[np.ndarray, "units 2"], first: int, last: int) -> float:
    raised = np.exp(units.astype(np.float64) - units.max(axis=0))
    shares = raised / raised.sum(axis=0)
    return float(shares[first, 0] * shares[last, 1])


def _by_example(features: Sequence[Feature], count: int) -> Iterator[list[int]]:
    """The windows of each example."""
    places: list[list[int]] = [[] for _ in range(count)]
    for i, feature in enumerate(features):
        places[feature["example"][0]].append(i)
    yield from places
