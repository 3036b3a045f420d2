"""What examples look like as a whole: scripts, lengths, labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from recompress.benchmarks import Example
from recompress.benchmarks.text import words_of
from recompress.data.questions import KINDS, is_question

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


def lengths(examples: Sequence[Example]) -> dict[str, int]:
    """Quantiles of the number of words of an example; texts are cut as served text is. No less than so many words are in that share of examples."""
    counts = sorted(
        sum(len(words_of(text)) for text in example.words) if len(example.words) == 1 or is_question(example) else len(example.words)
        for example in _sample(examples)
    )
    return {name: counts[min(len(counts) - 1, int(share * len(counts)))] for name, share in QUANTILES.items()} if counts else {}


def labels_in(examples: Sequence[Example], *, tagged: bool) -> Counter[str]:
    """How often each label occurs; of tags each entity counts once, by its type; of questions whether they have an answer."""
    if any(map(is_question, examples[:1])):
        return Counter(KINDS[any(example.labels)] for example in examples)
    counts = Counter(label for example in examples for label in example.labels)
    return Counter({label[2:]: count for label, count in counts.items() if label[:2] == "B-"}) if tagged else counts


def _sample(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // SAMPLE)]
