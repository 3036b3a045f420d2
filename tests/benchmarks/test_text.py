"""Words out of plain text."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks.text import words_of


def test_words_numbers_and_marks() -> None:
    assert words_of("Bw. Juma's al-Qaeda, don’t: 3.5%\u200b x_y…") == (
        "Bw", ".", "Juma's", "al-Qaeda", ",", "don’t", ":", "3", ".", "5", "%", "x", "_", "y", "…",
    )  # fmt: skip


def test_marks_stay_with_their_letters() -> None:
    assert words_of(unicodedata.normalize("NFD", "Ọjọ́ ẹ̀yà")) == tuple(unicodedata.normalize("NFD", "Ọjọ́ ẹ̀yà").split())
    assert words_of("नमस्ते दुनिया।") == ("नमस्ते", "दुनिया", "।")


@given(st.text())
def test_nothing_but_spaces_and_controls_is_lost_and_no_word_holds_a_space(text: str) -> None:
    words = words_of(text)
    letters = [c for c in text if not c.isspace() and unicodedata.category(c)[0] not in "CZ"]
    assert [c for c in "".join(words) if unicodedata.category(c)[0] != "C"] == letters
    assert all(word and not any(c.isspace() for c in word) for word in words)
    assert words_of(" ".join(words)) == words
