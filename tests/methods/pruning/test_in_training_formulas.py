"""Schedules and masks of pruning in training, as functions: against formulas and loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from recompress.methods.pruning import dynamic_sparse
from recompress.methods.pruning.in_training import cubic, spaced
from recompress.methods.pruning.scope import zeros_of

rewire = jaxtyped(typechecker=beartype)(dynamic_sparse.rewire)


@given(st.integers(0, 20), st.integers(1, 50), st.floats(0, 0.5), st.floats(0.5, 0.99))
def test_the_schedule_rises_from_the_first_share_to_the_last(first: int, length: int, start: float, target: float) -> None:
    values = [cubic(step, first, first + length, start, target) for step in range(first + length + 3)]
    assert values == sorted(values)
    assert values[: first + 1] == pytest.approx([start] * (first + 1))
    assert values[first + length :] == [target] * 3
    assert cubic(50, 0, 100, 0.0, 0.8) == pytest.approx(0.8 - 0.8 * 0.5**3)


@given(st.integers(0, 20), st.integers(0, 50), st.integers(1, 60))
def test_updates_are_spaced_evenly(first: int, length: int, number: int) -> None:
    steps = sorted(spaced(first, first + length, number))
    assert steps[-1] == first + length
    assert len(steps) == max(1, min(number, length))
    gaps = [b - a for a, b in zip([first, *steps], steps, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 999), st.data())
def test_rewiring_is_dropping_and_growing_one_by_one(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, wish = torch.randn(rows, columns, generator=draw), torch.rand(rows, columns, generator=draw)
    alive = torch.rand(rows, columns, generator=draw) < 0.6
    count = data.draw(st.integers(0, int(alive.sum())))
    left = {tuple(place) for place in alive.nonzero().tolist()}
    for _ in range(count):
        left.remove(min(left, key=lambda place: abs(float(weight[place]))))
    for _ in range(count):
        left.add(max(({(r, c) for r in range(rows) for c in range(columns)} - left), key=lambda place: float(wish[place])))
    assert {tuple(place) for place in rewire(weight, alive, wish, count).nonzero().tolist()} == left


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.floats(0, 0.98), st.sampled_from(["uniform", "erdos_renyi"]))
def test_the_zeros_of_all_matrices_are_what_was_asked(shapes: list[tuple[int, int]], share: float, distribution: Any) -> None:
    zeros = zeros_of(shapes, share, distribution)
    sizes = [rows * columns for rows, columns in shapes]
    assert sum(zeros) == int(share * sum(sizes) + 1e-9)
    assert all(0 <= count <= size for count, size in zip(zeros, sizes, strict=True))
    if distribution == "uniform":
        assert all(abs(count - share * size) <= 1 for count, size in zip(zeros, sizes, strict=True))
    else:  # the density follows (out + in) / (out * in) wherever it is not held at 1
        free = [((size - count) * size / sum(shape) / size, size) for count, size, shape in zip(zeros, sizes, shapes, strict=True) if count > 1]
        assert all(abs(a - b) <= 2 for a, _ in free for b, _ in free)


def test_the_share_that_is_dropped_falls_along_a_cosine() -> None:
    assert [dynamic_sparse.dropped_share(t, 10, 0.4) for t in (0, 5, 10, 12)] == pytest.approx([0.4, 0.2, 0.0, 0.0])
