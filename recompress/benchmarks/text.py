"""Plain text into words, where no data set has done it: deterministic, the same for every language."""

from __future__ import annotations

import regex

# Letters with their marks (Yoruba written as NFD, Devanagari) and digits; apostrophes and hyphens hold a word together when letters stand on both sides.
_LETTER = r"[\p{L}\p{M}\p{N}\u200c\u200d]"
_WORD = regex.compile(rf"{_LETTER}+(?:['’ʼ\-]{_LETTER}+)*|[^\s\p{{C}}\p{{L}}\p{{M}}\p{{N}}]")


def words_of(text: str) -> tuple[str, ...]:
    """Words, numbers and single punctuation marks, in order. Spaces, control characters and lone format characters are left out."""
    return tuple(_WORD.findall(text))


def places_of_words(text: str) -> tuple[tuple[int, int], ...]:
    """Where each of ``words_of(text)`` stands: its first character and the one behind its last."""
    return tuple(match.span() for match in _WORD.finditer(text))
