"""What examples look like as a whole: scripts, lengths, labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from recompress.benchmarks import Example
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.benchmarks.text import words_of
from recompress.data.questions import KINDS
from recompress.models.heads import Answer

SAMPLE = 2000
"""Examples, evenly taken, whose letters and words are counted."""
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}


def scripts(examples: Sequence[Example]) -> dict[str, float]:
    """The share of letters in each script, greatest first; shares below one in a thousand are left out."""
    counts = Counter(script for example in _sample(examples) for word in example.words for letter in word if (script := _script(letter)))
    total = counts.total()
    return {script: round(count / total, 4) for script, count in counts.most_common() if count >= total / 1000}


@cache
def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode, which is its script; empty for what is no letter."""
    name = unicodedata.name(letter, "") if letter.isalpha() else ""
    first = name.split(" ")[0].split("-")[0]
    return "" if first in ("", "MODIFIER", "FEMININE", "MASCULINE", "MICRO") else {"CJK": "Han", "FULLWIDTH": "Latin"}.get(first, first.title())


def lengths(examples: Sequence[Example], *, tagged: bool) -> dict[str, int]:
    """Quantiles of the number of words of an example; texts (both of a pair) are cut as served text is. No less than so many words are in that share of examples."""
    counts = sorted(
        len(example.words) if tagged and len(example.words) != 1 else sum(len(words_of(text)) for text in example.words) for example in _sample(examples)
    )
    return {name: counts[min(len(counts) - 1, int(share * len(counts)))] for name, share in QUANTILES.items()} if counts else {}


def labels_in(examples: Sequence[Example], answer: Answer) -> Counter[str]:
    """How often each label occurs; of tags each entity counts once, by its type; of questions whether they have an answer. Numbers and texts are no labels."""
    if answer in ("number", "text"):
        return Counter()
    if answer == "span":
        return Counter(KINDS[any(example.labels)] for example in examples)
    counts = Counter(label for example in examples for label in example.labels if label != NO_LABEL_HOLDS)
    return Counter({label[2:]: count for label, count in counts.items() if label[:2] == "B-"}) if answer == "tags" else counts


def numbers_in(examples: Sequence[Example]) -> str:
    """In a few words, what numbers rows say."""
    numbers = np.array([float(example.labels[0]) for example in examples])
    return (
        f"the numbers lie between {numbers.min():g} and {numbers.max():g}, {numbers.mean():.4g} in the mean, with a standard deviation of {numbers.std():.3g}"
    )


def _sample(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // SAMPLE)]
