"""Batches cost as little as any others would, hold every text once, and are the same whoever cuts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from recompress.runtimes.cutting import Cost, cut

LENGTHS = st.lists(st.integers(1, 40), max_size=7)
COSTS = st.builds(Cost, call=st.integers(0, 60), even=st.integers(1, 3000), crowd=st.integers(1, 10_000))
FREE = 10**6
"""Of a batch whose size and length cost nothing."""


def partitions(texts: Sequence[int]) -> Iterator[list[list[int]]]:
    """All ways to put texts into batches, sorted or not."""
    if not texts:
        yield []
        return
    first, *rest = texts
    for parts in partitions(rest):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]


def cost_of(parts: Sequence[Sequence[int]], cost: Cost) -> Fraction:
    """Of batches of lengths, by the formula."""
    tokens = [len(part) * max(part) for part in parts]
    squares = [len(part) * max(part) ** 2 for part in parts]
    shares = sum(tokens) + Fraction(sum(squares), cost.even) + Fraction(sum(count**2 for count in tokens), cost.crowd)
    return len(parts) * cost.call + shares


@given(lengths=LENGTHS, most=st.integers(1, 8), cost=COSTS)
def test_no_other_batches_cost_less(lengths: list[int], most: int, cost: Cost) -> None:
    parts = [[lengths[i] for i in part] for part in cut(lengths, most, cost)]
    allowed = (others for others in partitions(lengths) if all(len(other) <= most for other in others))
    assert cost_of(parts, cost) == min(cost_of(others, cost) for others in allowed)


@given(lengths=st.lists(st.integers(1, 400), max_size=100), most=st.integers(1, 40), cost=COSTS)
def test_every_text_is_in_one_batch_and_none_is_larger_than_it_may_be(lengths: list[int], most: int, cost: Cost) -> None:
    parts = cut(lengths, most, cost)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert all(0 < len(part) <= most for part in parts)
    in_order = [(lengths[i], i) for part in parts for i in part]
    assert in_order == sorted(in_order)


@given(lengths=st.lists(st.integers(1, 100), max_size=60), most=st.integers(1, 40), cost=COSTS)
def test_what_was_cut_is_not_cut_again(lengths: list[int], most: int, cost: Cost) -> None:
    for part in cut(lengths, most, cost):
        assert cut([lengths[i] for i in part], most, cost) == [[*range(len(part))]]


def test_a_dear_call_is_shared_by_all_and_a_cheap_one_by_what_is_equally_long() -> None:
    lengths = [30, 10, 30, 11, 10]
    assert cut(lengths, 32, Cost(call=1000, even=FREE, crowd=FREE)) == [[1, 4, 3, 0, 2]]
    assert cut(lengths, 32, Cost(call=1, even=FREE, crowd=FREE)) == [[1, 4], [3], [0, 2]]
    assert cut(lengths, 2, Cost(call=1000, even=FREE, crowd=FREE)) == [[1, 4], [3], [0, 2]]
    assert cut([7] * 5, 2, Cost(call=1000, even=FREE, crowd=FREE)) == [[0], [1, 2], [3, 4]]


def test_long_texts_share_less_where_attention_grows_faster() -> None:
    lengths = [500, 520]
    assert cut(lengths, 32, Cost(call=30, even=FREE, crowd=FREE)) == [[0, 1]]
    assert cut(lengths, 32, Cost(call=30, even=500, crowd=FREE)) == [[0], [1]]


def test_more_of_a_length_than_the_caches_hold_are_not_asked_at_once() -> None:
    assert [len(part) for part in cut([50] * 32, 32, Cost(call=20, even=FREE, crowd=8000))] == [8] * 4
    assert [len(part) for part in cut([50] * 32, 32, Cost(call=20, even=FREE, crowd=FREE))] == [32]
