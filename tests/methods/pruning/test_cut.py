"""The strongest stay, as many as asked, and groups of query heads stay equal."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.methods.pruning.cut import Cut, apply_cut, pick_heads, strongest, strongest_overall
from recompress.models.architecture import layers_of
from tests.six import HIDDEN, checkpoint_of


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_the_strongest_are_as_many_as_asked_and_none_left_out_is_stronger(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    chosen = strongest(torch.tensor(values, dtype=torch.float32), count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == count
    left = [value for i, value in enumerate(values) if i not in chosen]
    assert not chosen or not left or min(values[i] for i in chosen) >= max(left)


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0, 9, width=32), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_every_layer_keeps_its_strongest_part(scores: list[list[float]], data: st.DataObject) -> None:
    count = data.draw(st.integers(len(scores), sum(map(len, scores))))
    chosen = strongest_overall([torch.tensor(layer) for layer in scores], count)
    assert sum(map(len, chosen)) == count
    for layer, stay in zip(scores, chosen, strict=True):
        assert stay == sorted(set(stay))
        assert max(layer) in [layer[i] for i in stay]
        assert all(0 <= i < len(layer) for i in stay)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99), st.data())
def test_heads_stay_in_equal_groups_and_are_the_strongest_of_each(groups: int, ratio: int, seed: int, data: st.DataObject) -> None:
    scores = torch.rand(groups * ratio, generator=torch.Generator().manual_seed(seed)).double()
    left, each = data.draw(st.integers(1, groups)), data.draw(st.integers(1, ratio))
    [heads] = pick_heads([scores], [groups], [left], [each])
    sums = [float(scores[g * ratio : (g + 1) * ratio].square().sum()) for g in range(groups)]
    best = max(itertools.combinations(range(groups), left), key=lambda some: sum(sums[g] for g in some))
    expected = [h for g in best for h in sorted(sorted(range(g * ratio, (g + 1) * ratio), key=lambda h: -float(scores[h]))[:each])]
    assert heads == expected


@settings(max_examples=40)
@given(st.integers(0, 99), st.data())
def test_heads_of_all_layers_together(seed: int, data: st.DataObject) -> None:
    """Two layers of 2 x 3 query heads: groups and heads of each are counted over both."""
    scores = list(torch.rand(2, 6, generator=torch.Generator().manual_seed(seed)).double())
    groups, each = data.draw(st.integers(2, 4)), data.draw(st.integers(2, 6))
    heads = pick_heads(scores, [2, 2], groups, each)
    by_group = [[[h for h in layer if h // 3 == g] for g in range(2)] for layer in heads]
    assert sum(bool(group) for layer in by_group for group in layer) == groups
    sizes = [{len(group) for group in layer if group} for layer in by_group]
    assert all(len(size) == 1 for size in sizes)
    assert sum(size.pop() for size in sizes) == each


def test_heads_with_keys_of_their_own_are_groups_of_one() -> None:
    assert pick_heads([torch.tensor([0.3, 0.9, 0.1, 0.5])], [4], [2], [1]) == [[1, 3]]


def test_of_a_heads_middle_layer_the_outputs_with_the_largest_weights_stay() -> None:
    """Before them and after them; not the first."""
    checkpoint = checkpoint_of("roberta")
    dense, last = checkpoint.torch_network.classifier.dense, checkpoint.torch_network.classifier.out_proj
    with torch.no_grad():
        dense.weight[:8] *= 0.1
        last.weight[:, :8] *= 0.1
        dense.weight[3] *= 1000
        last.weight[:, 5] *= 1000
    rows, columns = dense.weight.detach().clone(), last.weight.detach().clone()
    sizes = [float(rows[i].square().sum() + columns[:, i].square().sum()) for i in range(HIDDEN)]
    stay = sorted(sorted(range(HIDDEN), key=lambda i: -sizes[i])[:20])
    assert {3, 5} <= set(stay) != set(range(20))
    layers = layers_of(checkpoint.torch_network)
    hidden = [*range(4, 24)]
    apply_cut(checkpoint.torch_network, Cut([0, 1], [[*range(layer.heads)] for layer in layers], [[*range(layer.neurons)] for layer in layers], hidden))
    assert torch.equal(dense.weight, rows[stay][:, hidden])
    assert torch.equal(last.weight, columns[:, stay])


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_invented(count: int) -> None:
    assert strongest(torch.zeros(count), 5) == list(range(count))


def test_layers_compare_by_what_their_parts_are_worth_within_them() -> None:
    """However large the scores of a layer are: a part that carries most of a quiet layer stays before one of many in a loud one."""
    loud, quiet = torch.tensor([50.0, 49.0, 48.0, 47.0]), torch.tensor([0.9, 1.0, 0.01, 0.01])
    assert strongest_overall([loud, quiet], 3) == [[0], [0, 1]]
