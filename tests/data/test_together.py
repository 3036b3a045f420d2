"""Texts that belong together are seen where they do, and not where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.benchmarks import Example
from recompress.data.together import look, near_duplicates, what_bounds_mean


def documents(size: int, count: int, seed: int = 0, *, subject: float = 0.3) -> list[Example]:
    """Documents of ``size`` texts of a dozen words, ``subject`` of them from the document's own thirty."""
    rng = np.random.default_rng(seed)
    common = rng.zipf(1.3, size=(size * count, 12)) % 3000
    own = rng.integers(0, 30, size=(size * count, 12)) + 3000 + 30 * np.repeat(np.arange(count), size)[:, None]
    words = np.where(rng.random(common.shape) < subject, own, common)
    return [Example((" ".join(f"w{word}" for word in row),), ("ab"[int(rng.integers(2))],), "x") for row in words]


@pytest.mark.parametrize("size", [2, 10, 20])
def test_the_length_of_documents_is_seen(size: int) -> None:
    seen = look(documents(size, 2000 // size))
    assert seen.run == pytest.approx(size, rel=0.25)
    assert seen.shared > 2
    assert seen.near == 0


def test_strangers_are_strangers_in_whatever_order_their_labels_and_slices_come() -> None:
    related = documents(10, 100)
    shuffled = [related[i] for i in np.random.default_rng(1).permutation(1000)]
    assert look(shuffled).size == pytest.approx(1, abs=0.01)
    by_label = [replace(example, words=(f"{example.words[0]} {example.labels[0] * 3}",)) for example in sorted(shuffled, key=lambda e: e.labels)]
    assert look(by_label).size == pytest.approx(1, abs=0.01), "texts of one label share words, and that is what the label is for"
    by_slice = [replace(e, slice=e.labels[0], words=(" ".join(word + e.labels[0] for word in e.words[0].split()),)) for e in by_label]
    assert look(by_slice).size == pytest.approx(1, abs=0.01), "languages share no words"


def test_neighbours_are_those_of_a_slice() -> None:
    alternating = [replace(example, slice="xy"[i % 2]) for i, example in enumerate(documents(2, 500))]
    assert look(alternating).size == pytest.approx(1, abs=0.01)


def test_near_duplicates_are_seen_wherever_they_stand() -> None:
    texts = documents(1, 300)
    again = [replace(example, words=(f"{example.words[0].rpartition(' ')[0]} other",)) for example in texts[:40]]
    seen = look(texts + again)
    assert seen.near == 80
    assert look(texts).near == 0


@given(st.lists(st.lists(st.integers(0, 3), min_size=0, max_size=6), min_size=1, max_size=20))
def test_equal_texts_are_of_one_family_and_texts_without_a_common_run_of_words_are_not(texts: list[list[int]]) -> None:
    family = near_duplicates([np.array(text, dtype=np.int64) for text in texts])
    for i, one in enumerate(texts):
        for j, other in enumerate(texts[:i]):
            if one == other:
                assert family[i] == family[j]
    long = [list(range(10 * i, 10 * i + 5)) for i in range(len(texts))]
    assert list(near_duplicates([np.array(text) for text in long])) == list(range(len(texts)))


def test_the_line_says_what_the_bounds_mean() -> None:
    related = documents(10, 60)
    line = what_bounds_mean(related)
    assert "No groups are named, but neighbours share" in line
    assert "name what they belong to (group: in params.yaml)" in line
    assert "% of cases at a bound of 95 %" in line
    named = [replace(example, group=f"g{i // 10}") for i, example in enumerate(related)]
    assert what_bounds_mean(named).startswith("600 test texts from 60 groups")
    assert what_bounds_mean(documents(1, 300)).startswith("No groups are named, and none were found in 300 test texts")
    assert what_bounds_mean([]) == ""
    assert look(documents(10, 60)).passes_at_the_margin == pytest.approx(0.30, abs=0.03)


@pytest.mark.parametrize("texts", [[], [""], ["a"] * 3, ["one two three"] * 30, [""] * 30])
def test_odd_splits_say_something_or_nothing_but_never_raise(texts: list[str]) -> None:
    seen = look([Example((text,), ("a",)) for text in texts])
    assert seen.size >= 1 or not texts
    assert 0 < seen.passes_at_the_margin < 0.5
