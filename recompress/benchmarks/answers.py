"""Answers that are found in a text: how they are written down, and how SQuAD scores one against several that are right.

    normalised    lower case, without punctuation, without articles, single spaces
    exact match   1 where the two are the same, normalised
    F1            2 * shared / (answered + right), over their words with repeats; where one of them has no word, 1 if neither has

Of several right answers the one counts that scores best. ``squad`` leaves out ASCII punctuation and the English articles, as SQuAD's own script does;
``unicode`` leaves out all punctuation that Unicode knows, no articles, which other languages have others of or none, and takes each character of scripts
without spaces for a word.

Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1; Rajpurkar et al. 2018, arXiv:1806.03822 (no answer); Lewis et al. 2020 (MLQA), arXiv:1910.07475, section 5.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import regex

from recompress.errors import DataRefused

Normalisation = Literal["squad", "unicode"]
NOTHING = ""
"""How "there is no answer" is written."""
_ARTICLES = regex.compile(r"\b(a|an|the)\b")
_ASCII = str.maketrans("", "", string.punctuation)
_MARKS = regex.compile(rf"[\p{{P}}{regex.escape(string.punctuation)}]")
_ALONE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


class Span(NamedTuple):
    """Where an answer stands, in characters, and its text."""

    start: int
    text: str

    @property
    def end(self) -> int:
        """The character behind its last."""
        return self.start + len(self.text)


def written(span: Span | None) -> str:
    """``177:Denver Broncos``; nothing for no answer."""
    return NOTHING if span is None else f"{span.start}:{span.text}"


def read(label: str) -> Span | None:
    """What ``written`` gave. Raises ``DataRefused`` for anything else."""
    start, _, text = label.partition(":")
    if label == NOTHING:
        return None
    if not is_written(label):
        raise DataRefused(f"an answer is written as 'first character:text', or as nothing where there is none, got {label[:60]!r}")
    return Span(int(start), text)


def is_written(label: str) -> bool:
    """Whether ``read`` takes it."""
    start, colon, _ = label.partition(":")
    return label == NOTHING or (bool(colon) and start.isdecimal())


def text_of(label: str) -> str:
    span = read(label)
    return NOTHING if span is None else span.text


def normalised_squad(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII)).split())


def normalised_unicode(text: str) -> str:
    return " ".join(_ALONE.sub(r" \g<0> ", _MARKS.sub("", text.lower())).split())


NORMALISED: Mapping[Normalisation, Callable[[str], str]] = {"squad": normalised_squad, "unicode": normalised_unicode}


def exact(right: str, answered: str) -> int:
    """Both normalised."""
    return int(right == answered)


def f1(right: str, answered: str) -> float:
    """Both normalised."""
    gold, given = right.split(), answered.split()
    if not gold or not given:
        return float(gold == given)
    shared = (Counter(gold) & Counter(given)).total()
    return 2 * shared / (len(gold) + len(given))


def best(rights: Sequence[str], answered: str, normalisation: Normalisation) -> tuple[int, float]:
    """Exact match and F1, each with the right answer that gives most. Right answers of which nothing is left are none, as in SQuAD's script; without any, it is
    right to give no answer."""
    normalised = NORMALISED[normalisation]
    golds = [gold for gold in map(normalised, rights) if gold] or [NOTHING]
    given = normalised(answered)
    return max(exact(gold, given) for gold in golds), max(f1(gold, given) for gold in golds)
