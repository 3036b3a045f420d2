"""Multi-label classification: any number of labels for each text, none and all of them included, judged by F1 over all decisions.

    a label holds where sigmoid(logit) >= threshold
    micro F1 = 2 * correct / (predicted + gold), over all labels together      macro F1 = the mean over labels of the same
    subset accuracy = texts with exactly the right labels / all texts

A label that occurs neither in the references nor in the predictions has no F1 and is left out of the macro mean. Where no text has a label and none is
predicted, micro F1 has no value.

Source: Tsoumakas, Katakis and Vlahavas 2010, "Mining multi-label data", section 4.1 (micro, macro, subset accuracy); the numbers equal scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float, Int, Num
from pydantic import Field

from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.benchmarks.scores import Feature, ratio, scores, type_scores, whole_texts
from recompress.errors import DataRefused
from recompress.models.heads import MULTI_LABEL
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example


class Threshold(Settings):
    """The benchmark's own dial, in a recipe under ``answering``; a model keeps it."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The probability from which on a label holds."""


class MultiLabelClassification:
    """The unit is the text; its logits are one for each label, each an answer of its own."""

    name = "multi-label-classification"
    primary = "micro_f1"
    head = MULTI_LABEL
    Dials = Threshold

    def __init__(self, dials: Threshold | None = None) -> None:
        self.dials = dials or Threshold()

    @property
    def answering(self) -> dict[str, Any]:
        """The dials as plain values, for a model to name."""
        return self.dials.model_dump(mode="json")

    def split(self, text: str) -> tuple[str, ...]:
        return (text,)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """See ``Benchmark.encode``; ``labels`` holds one row, a 1 or a 0 for each label, or NaN. Raises ``DataRefused`` for a label that is not known."""
        features = whole_texts(tokenizer, [" ".join(example.words) for example in examples], max_length)
        return [{**feature, "labels": [_flags(example.labels, labels)]} for feature, example in zip(features, examples, strict=True)]

    def unit_logits(self, logits: Float[np.ndarray, " labels"], feature: Feature) -> Float[np.ndarray, "1 labels"]:
        return np.asarray(logits)[None]

    def decide(self, unit_logits: Float[np.ndarray, "1 labels"], labels: Sequence[str]) -> tuple[str, ...]:
        """The labels that hold, in the order of ``labels``; nothing where none does."""
        least = np.log(self.dials.threshold / (1 - self.dials.threshold))
        return tuple(label for label, logit in zip(labels, unit_logits[0], strict=True) if logit >= least)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*(f"{label}.{what}" for label in labels for what in ("correct", "predicted", "gold")), "exact", "texts")

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples k"]:
        """Of each label whether it is correct, predicted and gold, then whether all labels are right, and 1. Raises ``DataRefused`` for an unknown label, and
        for a reference that says nothing."""
        if len(references) != len(predictions):
            raise DataRefused(f"{len(references)} references and {len(predictions)} predictions; there must be one for each")
        if (silent := next((row for row, reference in enumerate(references) if not len(reference)), None)) is not None:
            raise DataRefused(f"example {silent} says nothing about its labels; a row for which none holds says so with an empty label")
        gold, predicted = (
            np.array([_flags(row or (NO_LABEL_HOLDS,), labels) for row in rows]).reshape(len(rows), len(labels)) for rows in (references, predictions)
        )
        table = np.stack([gold * predicted, predicted, gold], axis=2).reshape(len(gold), 3 * len(labels))
        exact = (gold == predicted).all(axis=1)
        return np.concatenate([table, exact[:, None], np.ones((len(gold), 1))], axis=1).astype(np.int64)

    def metrics(self, totals: Num[np.ndarray, "*draws k"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        correct, predicted, gold = (totals[..., i:-2:3] for i in range(3))
        f1 = scores(correct, predicted, gold)["f1"]
        there = ~np.isnan(f1)
        micro = scores(correct.sum(axis=-1), predicted.sum(axis=-1), gold.sum(axis=-1))
        return {
            **{f"micro_{name}": value for name, value in micro.items()},
            "macro_f1": ratio(np.where(there, f1, 0).sum(axis=-1), there.sum(axis=-1)),
            "subset_accuracy": ratio(totals[..., -2], totals[..., -1]),
        }

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {label: type_scores(totals[3 * i : 3 * i + 3]) for i, label in enumerate(labels)}


def _flags(held: Sequence[str], labels: Sequence[str]) -> list[float]:
    """A 1 for each label that holds; NaN where nothing is said."""
    if not held:
        return [float("nan")] * len(labels)
    if unknown := set(held).difference(labels, (NO_LABEL_HOLDS,)):
        raise DataRefused(f"the label {min(unknown)!r} is not among {', '.join(labels)}")
    return [float(label in held) for label in labels]
