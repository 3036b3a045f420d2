"""Token classification: one IOB2 tag for each word, judged by whole entities.

An entity is ``B-X`` followed by every ``I-X`` of the same type that comes directly after it; an ``I-`` that continues nothing is no entity (IOB2, strict).
Found entities are correct when type, start and end are those of a gold entity, and

    F1 = 2 * correct / (predicted + gold)

Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task"; the numbers equal seqeval's ``mode="strict", scheme=IOB2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks.scores import NO_LABEL, Feature, scores, type_scores
from recompress.benchmarks.text import words_of
from recompress.errors import DataRefused, InputError
from recompress.models.heads import TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example

OUTSIDE = "O"
Entity = tuple[str, int, int]


class TokenClassification:
    """Named entities and the like. The first sub-token of a word carries its tag; words that truncation cut off are predicted ``O``."""

    name = "token-classification"
    primary = "f1"
    head = TOKENS

    def split(self, text: str) -> tuple[str, ...]:
        return words_of(text)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """See ``Benchmark.encode``. Raises ``InputError`` without the label ``O``, and ``DataRefused`` for a tag that is not among ``labels``."""
        number = _numbers(labels)
        if not examples:
            return []
        encoded = tokenizer([list(example.words) for example in examples], is_split_into_words=True, truncation=True, max_length=max_length)
        return [
            _feature(encoded["input_ids"][row], encoded["attention_mask"][row], encoded.word_ids(row), example, number) for row, example in enumerate(examples)
        ]

    def unit_logits(self, logits: Float[np.ndarray, "length labels"], feature: Feature) -> Float[np.ndarray, "units labels"]:
        positions = np.asarray(feature["units"], dtype=np.int64)
        chosen = np.asarray(logits)[positions]
        chosen[positions < 0] = 0
        return chosen

    def decide(self, unit_logits: Float[np.ndarray, "units labels"], labels: Sequence[str]) -> tuple[str, ...]:
        """The likeliest tag of each word; ``O`` for a row of zeros, which is a word that the model never saw."""
        best = unit_logits.argmax(axis=-1)
        best[~unit_logits.any(axis=-1)] = _numbers(labels)[OUTSIDE]
        return tuple(labels[i] for i in best)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{kind}.{what}" for kind in entity_types(labels) for what in ("correct", "predicted", "gold"))

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """Correct, predicted and gold entities of each type. Raises ``DataRefused`` when lengths differ or a tag is unknown."""
        column = {kind: 3 * i for i, kind in enumerate(entity_types(labels))}
        table = np.zeros((len(references), 3 * len(column)), dtype=np.int64)
        for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
            if len(reference) != len(prediction):
                raise DataRefused(f"example {row} has {len(reference)} tags and {len(prediction)} predictions; there must be one for each word")
            unknown = {*reference, *prediction}.difference(labels)
            if unknown:
                raise DataRefused(f"example {row} has the tag {min(unknown)!r}, which is not among the labels {', '.join(labels)}")
            gold, predicted = entities(reference), entities(prediction)
            for offset, group in enumerate((gold & predicted, predicted, gold)):
                for kind, _, _ in group:
                    table[row, column[kind] + offset] += 1
        return table

    def metrics(self, totals: Num[np.ndarray, "*draws k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        correct, predicted, gold = (totals[..., i::3].sum(axis=-1) for i in range(3))
        return scores(correct, predicted, gold)

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {kind: type_scores(totals[3 * i : 3 * i + 3]) for i, kind in enumerate(entity_types(labels))}


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one tagging as (type, first word, word after the last)."""
    spans, start, kind = set(), -1, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        if start >= 0 and tag != f"I-{kind}":
            spans.add((kind, start, i))
            start = -1
        if tag.startswith("B-"):
            start, kind = i, tag[2:]
    return spans


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """The types behind the tags, sorted."""
    return tuple(sorted({label[2:] for label in labels if label != OUTSIDE}))


def _numbers(labels: Sequence[str]) -> dict[str, int]:
    number = {label: i for i, label in enumerate(labels)}
    if OUTSIDE not in number:
        raise InputError(f"token classification needs the label 'O', got {', '.join(labels) or 'no labels'}")
    return number


def _feature(input_ids: list[int], attention_mask: list[int], word_ids: list[int | None], example: Example, number: dict[str, int]) -> Feature:
    if len(example.labels) not in (0, len(example.words)):
        raise DataRefused(f"{len(example.words)} words with {len(example.labels)} tags: {' '.join(example.words)[:60]!r}; there must be one for each word")
    units = [-1] * len(example.words)
    labels = [NO_LABEL] * len(input_ids)
    for position, word in enumerate(word_ids):
        if word is not None and units[word] < 0:
            units[word] = position
            if example.labels:
                labels[position] = _number(number, example.labels[word])
    return {"input_ids": list(input_ids), "attention_mask": list(attention_mask), "labels": labels, "units": units}


def _number(number: dict[str, int], tag: str) -> int:
    if tag not in number:
        raise DataRefused(f"the tag {tag!r} is not among the labels {', '.join(number)}")
    return number[tag]
