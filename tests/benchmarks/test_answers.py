"""Exact match and F1 against a second, slow way to count them, and on answers whose scores can be told by hand."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks.answers import NOTHING, Span, best, normalised_squad, normalised_unicode, read, written
from recompress.errors import DataRefused

WORDS = st.lists(st.sampled_from(["the", "a", "an", "The", "Denver", "denver", "Broncos,", "24–10", "(1990s)", "$", "'s", "theatre", "ẹ̀kọ́"]), max_size=6)


def slow_normalised(text: str) -> list[str]:
    """Letter by letter, word by word."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def slow_f1(right: list[str], given: list[str]) -> float:
    """By striking out words of one list in the other, one after the other."""
    left, shared = list(right), 0
    for word in given:
        if word in left:
            left.remove(word)
            shared += 1
    if not right or not given:
        return float(right == given)
    precision, recall = shared / len(given), shared / len(right)
    return 0.0 if not shared else 2 * precision * recall / (precision + recall)


@given(st.lists(WORDS, max_size=3), WORDS)
def test_equals_the_slow_way(rights: list[list[str]], answered: list[str]) -> None:
    golds = [gold for gold in (slow_normalised(" ".join(words)) for words in rights) if gold] or [[]]
    given = slow_normalised(" ".join(answered))
    exact, f1 = best([" ".join(words) for words in rights], " ".join(answered), "squad")
    assert exact == max(gold == given for gold in golds)
    assert f1 == pytest.approx(max(slow_f1(gold, given) for gold in golds))


@pytest.mark.parametrize(
    "rights, answered, exact, f1",
    [
        (["Denver Broncos"], "The Denver Broncos!", 1, 1),
        (["Denver Broncos", "Broncos"], "broncos", 1, 1),
        (["the 24–10 victory"], "victory", 0, 2 / 3),
        (["a b a b"], "a b", 0, 2 / 3),  # articles are gone from both: "b b" and "b"
        (["Levi's Stadium"], "levis stadium", 1, 1),
        (["yes"], NOTHING, 0, 0),
        ([NOTHING], NOTHING, 1, 1),
        ([NOTHING], "anything", 0, 0),
        (["The"], NOTHING, 1, 1),  # of a right answer nothing is left, so that it is right to give none
        ([NOTHING], "the", 1, 1),
    ],
)
def test_by_hand(rights: list[str], answered: str, exact: int, f1: float) -> None:
    assert best(rights, answered, "squad") == (exact, pytest.approx(f1))


def test_other_languages_keep_their_words_and_lose_all_marks() -> None:
    assert normalised_unicode("«A casa», an der Straße…") == "a casa an der straße"
    assert normalised_squad("«A casa», an der Straße…") == "« casa» der straße…"
    assert best(["丹佛野马队"], "丹佛", "unicode") == (0, pytest.approx(2 * 2 / (5 + 2)))
    assert best(["丹佛野马队"], "丹佛", "squad") == (0, 0.0)


@given(st.one_of(st.none(), st.builds(Span, st.integers(0, 10**6), st.text(min_size=1, max_size=12))))
def test_written_answers_are_read_back(span: Span | None) -> None:
    assert read(written(span)) == span


@pytest.mark.parametrize("label", ["Denver", "x:Denver", "-3:Denver", ":"])
def test_what_is_no_answer_is_refused(label: str) -> None:
    with pytest.raises(DataRefused, match="an answer is written as"):
        read(label)


def test_every_pair_of_normalisations_is_idempotent() -> None:
    texts = ["The  Denver, Broncos", "a", "1990s’", "丹佛 野马"]
    for normalised, text in itertools.product((normalised_squad, normalised_unicode), texts):
        assert normalised(normalised(text)) == normalised(text)
