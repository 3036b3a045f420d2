"""What a teacher says about a text, whatever its tokens and windows: of each word as the answer's first and as its last, and of there being no answer.

A word is a run of letters and digits, a mark, or one character of a script that sets no spaces. A teacher speaks of a word with the logit of the token that holds
its first character, and of the one that holds its last; of several windows that one counts in which the word is likeliest, and for no answer, as everywhere, that
in which it is least likely. At a student's tokens that are inside of words nothing begins and nothing ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex
from jaxtyping import Float, Int

from recompress.benchmarks.scores import Feature
from recompress.benchmarks.windows import tokens_of

NEVER = -1e4
"""The logit of what cannot be chosen."""
_PIECE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]")


def null_of(units: Float[np.ndarray, "units 2"]) -> float:
    """How likely a window finds that there is no answer: the two logits of its first token."""
    return float(units[0].sum())


def by_piece(text: str, windows: Sequence[tuple[Float[np.ndarray, "units 2"], Feature]]) -> Float[np.ndarray, "pieces 2"]:
    """The logits of no answer, and then of each word, from the units of all windows of one text."""
    starts, ends = _pieces(text)
    table = np.full((1 + len(starts), 2), NEVER, dtype=np.float32)
    table[0] = min((units for units, _ in windows), key=null_of)[0]
    for units, feature in windows:
        for column, positions in enumerate(tokens_of(feature, starts, ends)):
            inside = positions >= 0
            logits = units[1 + positions[inside] - feature["context"][0], column]
            table[1:, column][inside] = np.maximum(table[1:, column][inside], logits)
    return table


def at_tokens(text: str, told: Float[np.ndarray, "pieces 2"], feature: Feature) -> Float[np.ndarray, "length 2"]:
    """What ``by_piece`` gave, at the tokens of a window of another tokenizer."""
    row = np.full((len(feature["input_ids"]), 2), NEVER, dtype=np.float32)
    for column, positions in enumerate(tokens_of(feature, *_pieces(text))):
        inside = positions >= 0
        np.maximum.at(row[:, column], positions[inside], told[1:, column][inside])
    row[0] = told[0]
    return row


def _pieces(text: str) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
    """First character and the one behind the last of each word."""
    spans = np.array([match.span() for match in _PIECE.finditer(text)], dtype=np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]
