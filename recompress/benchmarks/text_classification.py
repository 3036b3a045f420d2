"""Text classification: one label for each text, judged by accuracy and by F1 averaged over labels.

    accuracy = correct / all        macro F1 = mean over labels of 2 * correct / (predicted + gold)

A label that occurs neither in the references nor in the predictions has no F1 and is left out of the mean, as in scikit-learn's
``f1_score(average="macro")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks.scores import NO_LABEL, Feature, ratio, scores, type_scores, whole_texts
from recompress.errors import DataRefused
from recompress.models.heads import SEQUENCE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example


class TextClassification:
    """Topics, sentiment and the like. The unit is the whole text."""

    name = "text-classification"
    primary = "accuracy"
    head = SEQUENCE

    def split(self, text: str) -> tuple[str, ...]:
        return (text,)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """See ``Benchmark.encode``; ``labels`` holds one number. Raises ``DataRefused`` for a label that is not among ``labels``."""
        number = {label: i for i, label in enumerate(labels)}
        features = whole_texts(tokenizer, [" ".join(example.words) for example in examples], max_length)
        return [{**feature, "labels": [number_of_label(number, example)]} for feature, example in zip(features, examples, strict=True)]

    def unit_logits(self, logits: Float[np.ndarray, " labels"], feature: Feature) -> Float[np.ndarray, "1 labels"]:
        return np.asarray(logits)[None]

    def decide(self, unit_logits: Float[np.ndarray, "1 labels"], labels: Sequence[str]) -> tuple[str, ...]:
        return (labels[int(unit_logits[0].argmax())],)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{label}.{what}" for label in labels for what in ("correct", "predicted", "gold"))

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """Correct, predicted and gold texts of each label: for one example a 0 or a 1. Raises ``DataRefused`` for anything but one known label each."""
        number = {label: i for i, label in enumerate(labels)}
        table = np.zeros((len(references), len(labels), 3), dtype=np.int64)
        for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
            if len(reference) != 1 or len(prediction) != 1 or reference[0] not in number or prediction[0] not in number:
                raise DataRefused(f"example {row} needs one label and one prediction among {', '.join(labels)}, got {reference!r} and {prediction!r}")
            gold, predicted = number[reference[0]], number[prediction[0]]
            table[row, gold, 0] = gold == predicted
            table[row, predicted, 1] = 1
            table[row, gold, 2] = 1
        return table.reshape(len(references), 3 * len(labels))

    def metrics(self, totals: Num[np.ndarray, "*draws k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        correct, predicted, gold = (totals[..., i::3] for i in range(3))
        f1 = scores(correct, predicted, gold)["f1"]
        there = ~np.isnan(f1)
        return {"accuracy": ratio(correct.sum(axis=-1), gold.sum(axis=-1)), "macro_f1": ratio(np.where(there, f1, 0).sum(axis=-1), there.sum(axis=-1))}

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {label: type_scores(totals[3 * i : 3 * i + 3]) for i, label in enumerate(labels)}


def number_of_label(number: dict[str, int], example: Example) -> int:
    """The number of an example's only label, ``NO_LABEL`` where it has none. Raises ``DataRefused`` for one that is not known."""
    if not example.labels:
        return NO_LABEL
    if example.labels[0] not in number:
        raise DataRefused(f"the label {example.labels[0]!r} is not among {', '.join(number)}")
    return number[example.labels[0]]
