"""Which of the examples tell something: rows without a letter, a digit or a sign lead to no statistics, and a check on them proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import median

import regex

from recompress.benchmarks import Example

_TEXT = regex.compile(r"[\p{L}\p{N}\p{P}\p{S}\p{Co}]")
POOL = 1000
"""So many different rows are looked at for those that tell most."""


def is_blank(example: Example) -> bool:
    """Whether there is nothing to read: no word, or nothing but spaces, controls and characters without width."""
    return not any(_TEXT.search(word) for word in example.words)


def with_text(examples: Sequence[Example]) -> list[Example]:
    """The examples that are not blank, in order."""
    return [example for example in examples if not is_blank(example)]


def telling(examples: Sequence[Example], count: int) -> list[Example]:
    """``count`` examples (all, where there are fewer) of different texts, none blank: in their order, the first that are at least of median length."""
    different = list(islice({example.words: example for example in with_text(examples)}.values(), POOL))
    lengths = [sum(map(len, example.words)) for example in different]
    if len(different) > count:
        usual = median(lengths)
        long = [example for example, length in zip(different, lengths, strict=True) if length >= usual]
        different = long if len(long) >= count else different
    return different[:count]
