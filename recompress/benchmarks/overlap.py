"""How near a written text comes to texts that are right, and how much of it repeats itself.

    exact      1 where the two are the same, normalised (``recompress.benchmarks.answers``);  f1: that of their words, as SQuAD has it
    chrF       F2 of the character n-grams, n = 1 … 6, spaces left out; of several right texts the one that is nearest
    ROUGE-L    F1 of the longest common subsequence of words: runs of letters, marks and digits of any script, in lower case
    distinct-n the share of a text's n-grams that did not stand in it before, 1 - seq-rep-n

Source: Popović 2015, doi:10.18653/v1/W15-3049 (chrF), by sacrebleu; Lin 2004, W04-1013 (ROUGE-L), by rouge-score; Li et al. 2016, arXiv:1510.03055 (distinct-n);
Welleck et al. 2020, arXiv:1908.04319, section 5.1.1 (seq-rep-n).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import regex

from recompress.benchmarks.answers import Normalisation, best
from recompress.errors import InputError

INSTALL = "pip install 'recompress[generation]'"
GRAMS = (1, 2, 4)
"""Lengths of the n-grams of tokens that are looked at for repeats."""
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


class Overlap(NamedTuple):
    """Each from 0 to 1."""

    exact: int
    f1: float
    chrf: float
    rouge_l: float


def overlap(rights: Sequence[str], written: str, normalisation: Normalisation) -> Overlap:
    """Of each score that of the right text which gives most. Raises ``InputError`` where sacrebleu or rouge-score is not installed."""
    exact, f1 = best(rights, written, normalisation)
    if not any(map(str.strip, rights)):  # it is right to write nothing
        return Overlap(exact, f1, float(exact), float(exact))
    chrf, rouge = _scorers()
    chrf_score = chrf.sentence_score(written, list(rights)).score / 100
    return Overlap(exact, f1, float(chrf_score), float(rouge.score_multi(list(rights), written)["rougeL"].fmeasure))


def check_installed() -> None:
    """Raises ``InputError`` where sacrebleu or rouge-score is missing: before anything is written, not after."""
    _scorers()


def grams(tokens: Sequence[int], length: int) -> tuple[int, int]:
    """The n-grams of so many tokens, and how many different ones."""
    every = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return len(every), len({*every})


class _Words:
    """What rouge-score calls a tokenizer. Its own knows the letters a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return [match[0] for match in _WORD.finditer(text.lower())]


@cache
def _scorers() -> tuple[Any, Any]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise InputError(f"what is written is scored by {error.name}, which is not installed: {INSTALL}") from None
    return CHRF(), RougeScorer(["rougeL"], tokenizer=_Words())
