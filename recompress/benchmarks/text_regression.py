"""Text regression: a number for each text, judged by how well answers and numbers go together.

    Pearson = cov(x, y) / (sd(x) sd(y))        Spearman = the same of ranks        RMSE = sqrt(mean (x - y)^2)        x: answers, y: references

What adds up over texts are whole numbers, so that no sum depends on its order: x and y in steps from their middle, and x^2, y^2 and x y,

    step = 2^k, at most sd(y) / 2^13 of the whole split          x = clip(round((answer - middle) / step), -FAR, FAR) + FAR

so that answers are counted to an eight-thousandth of the spread of the references or finer, and one that lies 64 spreads or more from their middle counts as lying
there. Pearson does not change with middle, step and FAR; RMSE is given in the data's unit again, because k is counted along.

Ranks are those in the whole split, ties at their mean. They are counted as values of the text, like x and y: a bootstrap draws texts with the ranks that they
have in the split, and does not rank each draw anew; the Spearman of a slice is the correlation of its texts' ranks in the split. To first order that is the
same, and for the difference of two models on one split what is left out is common to both. RMSE grows when a model gets worse; ``negative_rmse`` is for gates,
which take more for better. Pearson does not see a model whose answers are all too high, or too far apart: RMSE does.

Source: Pearson 1895; Spearman 1904, Am. J. Psychol. 15:72-101; Cer et al. 2017, arXiv:1708.00055, section 5 (Pearson of graded pairs and texts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Num

from recompress.benchmarks.scores import Feature, ratio, whole_texts
from recompress.errors import DataRefused
from recompress.models.heads import NUMBER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recompress.benchmarks.benchmark import Example

FINE = 13
"""Powers of two between a step and the spread of the references."""
FAR = 1 << 20
"""Steps from the middle within which an answer is counted as it is: 64 spreads of the references at least."""
ROUNDING = 1e-12
"""A variance that is this small beside the mean square is none: sums of millions of texts are rounded."""
NO_EXPONENT = 1100
"""Added to k, so that no count is negative; no power of two of a 64-bit float is smaller."""


class TextRegression:
    """Ratings, similarities, grades. The unit is the text, and its only "logit" the number itself, in the data's unit."""

    name = "text-regression"
    primary = "pearson"
    head = NUMBER

    def split(self, text: str) -> tuple[str, ...]:
        return (text,)

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], labels: Sequence[str], max_length: int) -> list[Feature]:
        """See ``Benchmark.encode``; ``labels`` holds one row with the number, or NaN. Raises ``DataRefused`` for what is no number."""
        features = whole_texts(tokenizer, [" ".join(example.words) for example in examples], max_length)
        return [{**feature, "labels": [[number_of(example.labels)]]} for feature, example in zip(features, examples, strict=True)]

    def unit_logits(self, logits: Float[np.ndarray, "1"], feature: Feature) -> Float[np.ndarray, "1 1"]:
        return np.asarray(logits)[None]

    def decide(self, unit_logits: Float[np.ndarray, "1 1"], labels: Sequence[str]) -> tuple[str, ...]:
        """The number as text, to nine digits: all that 32 bits hold."""
        return (f"{float(unit_logits[0, 0]):.9g}",)

    def count_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ("texts", "exponent", *(f"{what}.{of}" for of in ("value", "rank") for what in ("x", "y", "xx", "yy", "xy")))

    def counts(self, references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], labels: Sequence[str]) -> Int[np.ndarray, "examples 12"]:
        """See the head of this file. All of ``references`` together say what a step is and what ranks are. Raises ``DataRefused`` for what is no number."""
        if len(references) != len(predictions):
            raise DataRefused(f"{len(references)} references and {len(predictions)} predictions; there must be one for each")
        y, x = (np.array([number_of(row, needed=True) for row in rows], dtype=np.float64) for rows in (references, predictions))
        if not len(y):
            return np.zeros((0, 12), dtype=np.int64)
        middle, exponent = float(np.median(y)), _exponent(y)
        steps = [np.clip(np.rint(np.ldexp(values - middle, -exponent)), -FAR, FAR).astype(np.int64) + FAR for values in (x, y)]
        first = np.stack([np.ones(len(y), dtype=np.int64), np.full(len(y), exponent + NO_EXPONENT)], axis=1)
        return np.concatenate([first, _products(*steps), _products(*map(_ranks, (x, y)))], axis=1)

    def metrics(self, totals: Num[np.ndarray, "*draws 12"], labels: Sequence[str]) -> dict[str, Float[np.ndarray, "*draws"]]:
        totals = np.asarray(totals, dtype=np.float64)
        texts, (_, _, xx, yy, xy) = totals[..., 0], np.moveaxis(totals[..., 2:7], -1, 0)
        step = np.exp2(np.rint(ratio(totals[..., 1], texts)) - NO_EXPONENT)
        rmse = step * np.sqrt(np.maximum(ratio(xx - 2 * xy + yy, texts), 0))
        return {"pearson": _correlation(texts, totals[..., 2:7]), "spearman": _correlation(texts, totals[..., 7:]), "rmse": rmse, "negative_rmse": -rmse}

    def by_type(self, totals: Num[np.ndarray, " k"], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        return {}


def number_of(labels: Sequence[str], *, needed: bool = False) -> float:
    """The number that a row says, NaN where it says none. Raises ``DataRefused`` for what is no finite number, and for none where one is ``needed``."""
    if not labels and not needed:
        return math.nan
    try:
        [text] = labels
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataRefused(f"a number is expected for each text, got {', '.join(map(repr, labels)) or 'none'}")
    return value


def _exponent(references: Float[np.ndarray, " texts"]) -> int:
    spread = float(references.std()) or float(np.abs(references).max()) or 1.0
    return max(math.frexp(spread)[1] - 1 - FINE, 1 - NO_EXPONENT)


def _ranks(values: Float[np.ndarray, " texts"]) -> Int[np.ndarray, " texts"]:
    """Twice the rank, which is whole where ties share theirs."""
    from scipy.stats import rankdata

    twice: Int[np.ndarray, " texts"] = np.rint(2 * rankdata(values)).astype(np.int64)
    return twice


def _products(x: Int[np.ndarray, " texts"], y: Int[np.ndarray, " texts"]) -> Int[np.ndarray, "texts 5"]:
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def _correlation(texts: Float[np.ndarray, "*draws"], sums: Float[np.ndarray, "*draws 5"]) -> Float[np.ndarray, "*draws"]:
    """NaN where all answers, or all references, are the same."""
    x, y, xx, yy, xy = (ratio(sums[..., i], texts) for i in range(5))
    spreads = [np.where(square - mean * mean > ROUNDING * square, square - mean * mean, 0) for mean, square in ((x, xx), (y, yy))]
    spread = spreads[0] * spreads[1]
    together: Float[np.ndarray, "*draws"] = np.clip(ratio(xy - x * y, np.sqrt(spread)), -1, 1)
    return together
