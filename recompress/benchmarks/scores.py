"""Precision, recall and F1 from counts, element by element, so that a whole batch of bootstrap draws is scored at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LABEL = -100
"""The label number of a position that carries none; losses skip it. Of labels that are no classes (several at once, or a number) NaN says the same."""

Feature = dict[str, list[Any]]


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """``part / whole``, NaN where ``whole`` is 0."""
    above, below = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result: NDArray[np.float64] = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return result


def scores(correct: ArrayLike, predicted: ArrayLike, gold: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """``f1``, ``precision`` and ``recall``; NaN where the denominator is empty."""
    correct, predicted, gold = np.asarray(correct), np.asarray(predicted), np.asarray(gold)
    return {"f1": ratio(2 * correct, predicted + gold), "precision": ratio(correct, predicted), "recall": ratio(correct, gold)}


def type_scores(counts: Num[np.ndarray, "3"]) -> dict[str, float]:
    """The scores of one type or label from its (correct, predicted, gold), and ``support``, the number of gold ones."""
    correct, predicted, gold = counts
    return {name: float(value) for name, value in scores(correct, predicted, gold).items()} | {"support": float(gold)}


def whole_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[Feature]:
    """Each text as one sequence, its first position being what answers for it (``units``). An empty text has no token with some tokenizers; it gets one."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    nothing = [tokenizer.pad_token_id or 0]
    return [{"input_ids": list(ids) or nothing, "attention_mask": [1] * len(ids) or [1], "units": [0]} for ids in encoded["input_ids"]]
