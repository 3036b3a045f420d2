"""How likely a model of language finds each of several endings of a text.

    sum         ln p(ending | beginning) = sum_t ln p(token_t | tokens before it)
    per_token   sum / tokens of the ending          per_byte    sum / bytes of the ending

A beginning is read once for all of its endings, and what all beginnings have in common once for all of them. Where a tokenizer joins the end of the beginning
with the start of an ending, that token belongs to the ending, of all endings alike, so that the same text is asked of each.

Calibrated, an ending counts by how much likelier it is behind the text than behind texts that say nothing (their shares p_cf are averaged):

    score_i - ln p_cf,i         p_cf = mean over texts without content of softmax(score)

Source: Brown et al. 2020, arXiv:2005.14165, section 2.4 (choices by likelihood, by length); Zhao et al. 2021, arXiv:2102.09690, section 5 (W = diag(p_cf)^-1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from recompress.errors import DataRefused, IntegrityError
from recompress.runtimes.generation import Continues

Scored = Literal["sum", "per_token", "per_byte"]
SCORED: tuple[Scored, ...] = ("sum", "per_token", "per_byte")


class Question(NamedTuple):
    """The tokens of one text with each of its endings."""

    beginning: list[int]
    endings: list[list[int]]
    """Not empty, each."""


def question_of(beginning: Sequence[int], whole: Sequence[Sequence[int]]) -> Question:
    """``whole``: the tokens of the text with each ending, cut where the first of them leaves the tokens of the text alone. Raises ``DataRefused`` where no token is
    common to all."""
    common = min(len(beginning), *(shared(beginning, tokens) for tokens in whole))
    common = min(common, *(len(tokens) - 1 for tokens in whole))
    if common < 1:
        raise DataRefused("a prompt has no token before its choices; give the template some text of its own")
    return Question([*beginning[:common]], [[*tokens[common:]] for tokens in whole])


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that the two begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def likelihoods(runtime: Continues, prefix: Sequence[int], questions: Sequence[Question], room: int) -> Iterator[Float[np.ndarray, " endings"]]:
    """``ln p`` of each ending of each question, in nats. What a question begins with of ``prefix`` is not read again. Raises ``IntegrityError`` for logits that are
    not finite.

    The prefix is read by itself for the first question and gone back to for each, so that no answer depends on the questions before it.
    """
    held = 0
    with runtime.lock:
        for question in questions:
            start = min(shared(prefix, question.beginning), len(question.beginning) - 1)
            if start and held != len(prefix):
                runtime.prefill(prefix, room)
            if start:
                runtime.rewind(start)
                logits = runtime.read_on(question.beginning[start:])[-1]
            else:
                logits = runtime.prefill(question.beginning, room)
            held = len(prefix) if start == len(prefix) else 0
            yield np.array([_likelihood(runtime, len(question.beginning), logits, ending) for ending in question.endings])


def _likelihood(runtime: Continues, length: int, logits: Float[np.ndarray, " vocabulary"], ending: Sequence[int]) -> float:
    """The text before the ending is what the runtime has read up to ``length``, and ``logits`` are those behind it."""
    rows = [logits]
    if len(ending) > 1:
        runtime.rewind(length)
        rows += [*runtime.read_on(ending[:-1])]
    if not all(np.isfinite(row).all() for row in rows):
        raise IntegrityError("the model gives logits that are not finite")
    return sum(float(row[token]) - _log_sum(row) for row, token in zip(rows, ending, strict=True))


def normalised(sums: Float[np.ndarray, " endings"], tokens: Sequence[int], sizes: Sequence[int], by: Scored) -> Float[np.ndarray, " endings"]:
    """Likelihoods as they are compared; ``tokens`` and ``sizes`` (bytes) are those of the endings."""
    result: Float[np.ndarray, " endings"] = sums / np.asarray({"sum": [1] * len(sums), "per_token": tokens, "per_byte": sizes}[by], dtype=np.float64)
    return result


def shares(scores: Float[np.ndarray, " endings"]) -> Float[np.ndarray, " endings"]:
    """Softmax: what a score is worth among all."""
    raised = np.exp(scores - scores.max())
    result: Float[np.ndarray, " endings"] = raised / raised.sum()
    return result


def calibrated(scores: Float[np.ndarray, " endings"], without_content: Sequence[Float[np.ndarray, " endings"]]) -> Float[np.ndarray, " endings"]:
    """Scores beside those behind texts that say nothing; as they are, where none was asked."""
    if not without_content:
        return scores
    beside: Float[np.ndarray, " endings"] = scores - np.log(np.mean([shares(each) for each in without_content], axis=0))
    return beside


def _log_sum(logits: Float[np.ndarray, " vocabulary"]) -> float:
    highest = float(logits.max())
    with np.errstate(under="ignore"):
        return highest + float(np.log(np.exp(logits.astype(np.float64) - highest).sum()))
