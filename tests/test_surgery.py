"""Cutting equals multiplying by zero, and the numbers that modules tell about themselves stay true."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from recompress.architecture import layers_of, shape_of
from recompress.errors import IntegrityError
from recompress.runtimes import runtime_of
from recompress.surgery import fit_shapes, keep_heads, keep_inputs, keep_layers, keep_neurons, keep_outputs, note_neurons, weight_of
from tests.families import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, checkpoint_of, features_of


def outputs(checkpoint: Any) -> torch.Tensor:
    return torch.cat([torch.from_numpy(logits).flatten() for logits in runtime_of(checkpoint).logits(features_of(checkpoint))])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_some_heads_answers_like_one_whose_heads_are_silent(family: str) -> None:
    cut, silent = checkpoint_of(family), checkpoint_of(family)
    size = HIDDEN // HEADS
    kept = {0: [1, 3], 1: [0], 2: [0, 1, 2, 3]}
    for layer in layers_of(cut.torch_network):
        keep_heads(layer, kept[layer.index])
    for layer in layers_of(silent.torch_network):
        for head in {0, 1, 2, 3} - set(kept[layer.index]):
            weight_of(layer.out)[:, head * size : (head + 1) * size] = 0
    assert [layer.heads for layer in layers_of(cut.torch_network)] == [2, 1, 4]
    torch.testing.assert_close(outputs(cut), outputs(silent), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_some_neurons_answers_like_one_whose_neurons_are_silent(family: str) -> None:
    cut, silent = checkpoint_of(family), checkpoint_of(family)
    kept = list(range(0, NEURONS, 3))
    for layer in layers_of(cut.torch_network):
        keep_neurons(layer, kept)
    for layer in layers_of(silent.torch_network):
        weight_of(layer.neurons_out)[:, [i for i in range(NEURONS) if i not in kept]] = 0
    note_neurons(cut.torch_network)
    assert {layer.neurons for layer in layers_of(cut.torch_network)} == {len(kept)}
    torch.testing.assert_close(outputs(cut), outputs(silent), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_nothing(family: str) -> None:
    whole, kept = checkpoint_of(family), checkpoint_of(family)
    for layer in layers_of(kept.torch_network):
        keep_heads(layer, range(HEADS))
        keep_neurons(layer, range(NEURONS))
    keep_layers(kept.torch_network, range(LAYERS))
    assert torch.equal(outputs(whole), outputs(kept))


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_layers_are_the_old_ones_in_the_given_order(family: str) -> None:
    checkpoint = checkpoint_of(family)
    old = layers_of(checkpoint.torch_network)
    keep_layers(checkpoint.torch_network, [0, 2])
    assert [layer.module for layer in layers_of(checkpoint.torch_network)] == [old[0].module, old[2].module]
    assert checkpoint.torch_network.config.num_hidden_layers == 2
    assert outputs(checkpoint).isfinite().all()


@pytest.mark.parametrize("kind", [torch.nn.Linear, Conv1D])
def test_both_kinds_of_linear_layers_are_cut_alike(kind: Any) -> None:
    linear = kind(6, 4) if kind is torch.nn.Linear else kind(4, 6)
    torch.nn.init.normal_(linear.bias)
    x = torch.randn(2, 6)
    whole, cut = linear(x), copy.deepcopy(linear)
    keep_outputs(cut, [3, 1])
    assert shape_of(cut) == (2, 6)
    torch.testing.assert_close(cut(x) if kind is torch.nn.Linear else x @ cut.weight + cut.bias, whole[:, [3, 1]])
    narrow = copy.deepcopy(linear)
    keep_inputs(narrow, [5, 0])
    masked = torch.zeros_like(x)
    masked[:, [5, 0]] = x[:, [5, 0]]
    torch.testing.assert_close(narrow(x[:, [5, 0]]), linear(masked))
    assert str((4, 2)) in str(shape_of(narrow))


def test_stored_shapes_that_do_not_fit_are_refused() -> None:
    name = "bert.encoder.layer.1.attention.self.query.weight"
    with pytest.raises(IntegrityError, match="layer 1 do not fit"):
        fit_shapes(checkpoint_of("bert").torch_network, {name: (16, HIDDEN)})
    with pytest.raises(IntegrityError, match="layer 0 do not fit"):
        fit_shapes(checkpoint_of("bert").torch_network, {"bert.encoder.layer.0.output.dense.weight": (HIDDEN, 5)})
    with pytest.raises(IntegrityError, match="word_embeddings.weight is stored as"):
        fit_shapes(checkpoint_of("bert").torch_network, {"bert.embeddings.word_embeddings.weight": (7, HIDDEN)})
