"""A question and a long text, read in windows: the whole question before a part of the text, each part overlapping the one before it.

Windows are made by the tokenizer's own post-processing, so that special tokens and segments stand where the model knows them. Tokens know their characters in
the text, without the spaces that byte-level and sentence-piece tokens begin with: an answer is characters, not tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from recompress.benchmarks.answers import Span
from recompress.benchmarks.scores import Feature
from recompress.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 256
"""Examples that are cut into tokens together."""


class Found(NamedTuple):
    """The best span of one window."""

    score: float
    """Logit of its beginning plus that of its end."""
    first: int
    """Its first token, counted among those of the text in this window."""
    last: int


def windows_of(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], texts: Sequence[str], max_length: int, stride: int) -> list[list[Feature]]:
    """The windows of each pair. A question may take half of a window and is cut behind that; ``stride`` tokens of the text stand in two windows, or half of what there
    is room for, where that is less.

    A window holds ``input_ids``, ``attention_mask``, ``token_type_ids`` where the tokenizer gives segments, ``context`` (its first token of the text),
    ``begins`` and ``ends``: for each token of the text its first character and the one behind its last. Raises ``InputError`` for a ``max_length`` without room.
    """
    backend: Any = tokenizer.backend_tokenizer
    special = backend.num_special_tokens_to_add(True)
    if max_length < special + 2:
        raise InputError(f"max_length is at least {special + 2} for a question and its text, got {max_length}")
    segments = "token_type_ids" in tokenizer.model_input_names
    pairs = []
    for start in range(0, len(texts), CHUNK):
        asked = backend.encode_batch(list(questions[start : start + CHUNK]), add_special_tokens=False)
        read = backend.encode_batch(list(texts[start : start + CHUNK]), add_special_tokens=False)
        for asked_text, text, question, context in zip(questions[start : start + CHUNK], texts[start : start + CHUNK], asked, read, strict=True):
            if len(question) > (most := (max_length - special) // 2):
                question = backend.encode(asked_text[: question.offsets[most - 1][1]], add_special_tokens=False)
                question.truncate(most)
            room = max_length - special - len(question)
            context.truncate(room, stride=min(stride, room // 2))
            whole = backend.post_process(question, context, True)
            # Characters are those from before: byte-level post-processing trims spaces again, and takes a letter where none is left.
            parts = zip([whole, *whole.overflowing], [context, *context.overflowing], strict=True)
            pairs.append([_window(part, of_text.offsets, text, segments) for part, of_text in parts])
    return pairs


def _window(part: Any, offsets: Sequence[tuple[int, int]], text: str, segments: bool) -> Feature:
    places = [position for position, sequence in enumerate(part.sequence_ids) if sequence == 1]
    assert len(places) == len(offsets), "post-processing put a token into the text"
    begins, ends = zip(*(_without_spaces(text, *offset) for offset in offsets), strict=True) if places else ((), ())
    ids = list(part.ids)
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        **({"token_type_ids": list(part.type_ids)} if segments else {}),
        "context": [places[0] if places else len(ids)],
        "begins": list(begins),
        "ends": list(ends),
    }


def _without_spaces(text: str, begin: int, end: int) -> tuple[int, int]:
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    return begin, end


def question_is_cut(tokenizer: PreTrainedTokenizerBase, question: str, max_length: int) -> bool:
    """Whether a question has more tokens than the half of a window that it may take."""
    backend: Any = tokenizer.backend_tokenizer
    return bool(len(backend.encode(question, add_special_tokens=False)) > (max_length - backend.num_special_tokens_to_add(True)) // 2)


def positions_of(window: Feature, span: Span | None) -> tuple[int, int]:
    """The tokens that begin and end an answer in a window: the first of the sequence for both, where the answer is not there as a whole or there is none."""
    if span is None or not window["begins"]:
        return 0, 0
    start = span.start + len(span.text) - len(span.text.lstrip())
    end = span.end - (len(span.text) - len(span.text.rstrip()))
    if start >= end or start < window["begins"][0] or end > window["ends"][-1]:
        return 0, 0
    first = next(i for i, token in enumerate(window["ends"]) if token > start)
    last = max(i for i, token in enumerate(window["begins"]) if token < end)
    return window["context"][0] + first, window["context"][0] + max(first, last)


def best_span(begin: Float[np.ndarray, " tokens"], end: Float[np.ndarray, " tokens"], longest: int) -> Found | None:
    """The span of at most ``longest`` tokens with the greatest sum of logits, the first of equals; ``None`` without a token."""
    chosen: Found | None = None
    for length in range(min(longest, len(begin))):
        sums = begin[: len(begin) - length] + end[length:]
        first = int(sums.argmax())
        if chosen is None or float(sums[first]) > chosen.score:
            chosen = Found(float(sums[first]), first, first + length)
    return chosen


def tokens_of(
    window: Feature, starts: Int[np.ndarray, " places"], ends: Int[np.ndarray, " places"]
) -> tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]:
    """For pieces of the text, by their first character and the one behind their last, the positions of the tokens that begin and end them; -1 for those that are not
    in this window as a whole."""
    begins, behind = np.asarray(window["begins"]), np.asarray(window["ends"])
    if not len(begins):
        return np.full(len(starts), -1), np.full(len(starts), -1)
    inside = (starts >= begins[0]) & (ends <= behind[-1])
    first = np.searchsorted(behind, starts, side="right")
    last = np.searchsorted(begins, ends, side="left") - 1
    return tuple(np.where(inside, window["context"][0] + place, -1) for place in (first, last))  # type: ignore[return-value]
