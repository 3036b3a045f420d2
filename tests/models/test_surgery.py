"""Cutting equals multiplying by zero, and the numbers that modules tell about themselves stay true."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import is_norm, layers_of, outer_linears, shape_of
from recompress.models.packed import place
from recompress.models.surgery import (
    fit_shapes,
    keep_heads,
    keep_hidden,
    keep_inputs,
    keep_layers,
    keep_neurons,
    keep_outputs,
    note_heads,
    note_neurons,
    parameters_of,
    refuse_bound,
    weight_of,
)
from recompress.runtimes import runtime_of
from tests.six import DECODERS, ENCODERS, HEADS, HIDDEN, LAYERS, NEURONS, SIX, checkpoint_of, features_of

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(checkpoint: Any, family: str) -> torch.Tensor:
    return torch.cat([torch.from_numpy(logits).flatten() for logits in runtime_of(checkpoint).logits(features_of(checkpoint, family))])


def silence(linear: Any, inputs: Iterable[int]) -> None:
    weight_of(linear)[:, list(inputs)] = 0


def cut_heads(family: str) -> dict[int, list[int]]:
    """By layer. Llama has two groups of two: a whole group goes, or one head of each."""
    return {0: [2, 3], 1: [0, 3]} if family == "llama" else {0: [1, 3], 1: [0]}


@pytest.mark.parametrize("family", SIX)
def test_a_network_without_some_heads_answers_like_one_whose_heads_are_silent(family: str) -> None:
    cut, silent = checkpoint_of(family), checkpoint_of(family)
    size = HIDDEN // HEADS
    remaining_heads = cut_heads(family)
    for layer in layers_of(cut.torch_network):
        keep_heads(layer, remaining_heads[layer.index])
    for layer in layers_of(silent.torch_network):
        silence(layer.out, [head * size + i for head in range(HEADS) if head not in remaining_heads[layer.index] for i in range(size)])
    assert [layer.heads for layer in layers_of(cut.torch_network)] == [len(remaining_heads[0]), len(remaining_heads[1])]
    assert [layer.groups for layer in layers_of(cut.torch_network)] == ([1, 2] if family == "llama" else [2, 1])
    torch.testing.assert_close(outputs(cut, family), outputs(silent, family), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", SIX)
def test_a_network_without_some_neurons_answers_like_one_whose_neurons_are_silent(family: str) -> None:
    cut, silent = checkpoint_of(family), checkpoint_of(family)
    neurons = list(range(0, NEURONS, 3))
    for layer in layers_of(cut.torch_network):
        keep_neurons(layer, neurons)
    for layer in layers_of(silent.torch_network):
        silence(layer.neurons_out, [i for i in range(NEURONS) if i not in neurons])
    note_neurons(cut.torch_network)
    assert {layer.neurons for layer in layers_of(cut.torch_network)} == {len(neurons)}
    torch.testing.assert_close(outputs(cut, family), outputs(silent, family), rtol=1e-5, atol=1e-5)


class NormOfSome(torch.nn.Module):
    """A norm of the whole width that sees, and gives, only some of it."""

    def __init__(self, norm: Any, kept: list[int]) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x[..., self.kept]
        if "RMS" in type(self.norm).__name__:
            normalized = seen / (seen.square().mean(-1, keepdim=True) + self.norm.variance_epsilon).sqrt() * self.norm.weight[self.kept]
        else:
            normalized = torch.nn.functional.layer_norm(seen, (len(self.kept),), self.norm.weight[self.kept], self.norm.bias[self.kept], self.norm.eps)
        whole = torch.zeros_like(x)
        whole[..., self.kept] = normalized
        return whole


@pytest.mark.parametrize("family", SIX)
def test_a_network_of_less_width_answers_like_one_whose_other_dimensions_are_silent(family: str) -> None:
    """What no norm lets through, no layer sees; a middle layer of the head (a pooler) is cut as well, where there is one."""
    cut, silent = checkpoint_of(family), checkpoint_of(family)
    dimensions, middle = list(range(1, HIDDEN, 3)), list(range(0, HIDDEN, 3))
    keep_hidden(cut.torch_network, dimensions, middle)
    network = silent.torch_network
    for name, module in list(network.named_modules()):
        if is_norm(module):
            place(network, name, NormOfSome(module, dimensions))
    *before, last = outer_linears(network)
    if before:
        silence(last, [i for i in range(HIDDEN) if i not in middle])
    assert cut.torch_network.config.hidden_size == len(dimensions)
    assert {tuple(shape_of(layer.out)) for layer in layers_of(cut.torch_network)} == {(len(dimensions), HIDDEN)}
    assert (cut.torch_network.get_output_embeddings() is None) == (family in ENCODERS)
    torch.testing.assert_close(outputs(cut, family), outputs(silent, family), rtol=1e-5, atol=1e-5)


def test_tied_weights_stay_tied_when_they_get_narrower() -> None:
    for tied in (True, False):
        network = checkpoint_of("llama", tie_word_embeddings=tied).torch_network
        keep_hidden(network, range(8))
        output: Any = network.get_output_embeddings()
        assert (output.weight is network.get_input_embeddings().weight) == tied
        assert shape_of(output)[1] == 8


def test_groups_of_different_sizes_are_not_made() -> None:
    with pytest.raises(AssertionError, match="different sizes"):
        keep_heads(layers_of(checkpoint_of("llama").torch_network)[0], [0, 1, 2])


@pytest.mark.parametrize(("heads", "groups", "counts"), [([0, 1], 1, (2, 1)), ([0, 2], 2, (2, 2)), ([0], 1, (1, 1))])
def test_llamas_config_says_how_many_heads_there_are(heads: list[int], groups: int, counts: tuple[int, int]) -> None:
    network = checkpoint_of("llama").torch_network
    for layer in layers_of(network):
        keep_heads(layer, heads)
    note_heads(network)
    assert (network.config.num_attention_heads, network.config.num_key_value_heads) == counts
    assert {(layer.groups, layer.attention.num_key_value_groups) for layer in layers_of(network)} == {(groups, counts[0] // counts[1])}


@pytest.mark.parametrize("family", SIX)
def test_a_config_says_a_number_of_heads_that_divides_its_width(family: str) -> None:
    """Where it can say the true one it does: 3 heads of 8 in a width of 24."""
    for width, heads, count in ((24, [0, 1, 2], 3), (24, [0, 1, 2, 3], 4), (22, [0, 1, 2, 3], 2), (23, [0], 1)):
        checkpoint = checkpoint_of(family, **({"num_key_value_heads": 4} if family == "llama" else {}))
        for layer in layers_of(checkpoint.torch_network):
            keep_heads(layer, heads)
        keep_hidden(checkpoint.torch_network, range(width), range(width))
        note_heads(checkpoint.torch_network)
        assert checkpoint.torch_network.config.num_attention_heads == count


@pytest.mark.parametrize("family", SIX)
def test_keeping_everything_changes_nothing(family: str) -> None:
    whole, cut = checkpoint_of(family), checkpoint_of(family)
    for layer in layers_of(cut.torch_network):
        keep_heads(layer, range(HEADS))
        keep_neurons(layer, range(NEURONS))
    keep_layers(cut.torch_network, range(LAYERS))
    keep_hidden(cut.torch_network, range(HIDDEN), range(HIDDEN))
    assert torch.equal(outputs(whole, family), outputs(cut, family))


@pytest.mark.parametrize("family", SIX)
def test_kept_layers_are_the_old_ones_in_the_given_order(family: str) -> None:
    checkpoint = checkpoint_of(family, **{"n_layers" if family == "distilbert" else "n_layer" if family == "gpt2" else "num_hidden_layers": 3})
    old = layers_of(checkpoint.torch_network)
    keep_layers(checkpoint.torch_network, [0, 2])
    assert [layer.module for layer in layers_of(checkpoint.torch_network)] == [old[0].module, old[2].module]
    assert checkpoint.torch_network.config.num_hidden_layers == 2
    assert outputs(checkpoint, family).isfinite().all()  # a decoder keeps keys and values by the number of the layer
    assert {getattr(layer.attention, "layer_idx", layer.index) - layer.index for layer in layers_of(checkpoint.torch_network)} <= (
        {0} if family in DECODERS else {0, None}
    )


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


def test_layers_that_are_bound_to_each_other_are_refused() -> None:
    layers = layers_of(checkpoint_of("gpt2").torch_network)
    refuse_bound(layers, "prune_structure")
    layers[1].out.weight = layers[0].out.weight
    with pytest.raises(InputError, match="prune_structure cannot cut layers that share their weights"):
        refuse_bound(layers, "prune_structure")
    shared = layers_of(checkpoint_of("bert").torch_network)
    with pytest.raises(InputError, match="share their weights"):
        refuse_bound([shared[0], shared[0]], "group_queries")


def test_stored_shapes_that_do_not_fit_are_refused() -> None:
    name = "bert.encoder.layer.1.attention.self.query.weight"
    keys = {f"model.layers.1.self_attn.{part}_proj.weight": (24, HIDDEN) for part in "kv"}
    with pytest.raises(IntegrityError, match="layer 1 do not fit"):
        fit_shapes(checkpoint_of("llama").torch_network, keys)
    with pytest.raises(IntegrityError, match="layer 1 do not fit"):
        fit_shapes(checkpoint_of("bert").torch_network, {name: (16, HIDDEN)})
    with pytest.raises(IntegrityError, match="layer 0 do not fit"):
        fit_shapes(checkpoint_of("bert").torch_network, {"bert.encoder.layer.0.output.dense.weight": (HIDDEN, 5)})
    with pytest.raises(IntegrityError, match="word_embeddings.weight is stored as"):
        fit_shapes(checkpoint_of("bert").torch_network, {"bert.embeddings.word_embeddings.weight": (7, HIDDEN)})


def test_a_tensor_that_is_shared_counts_once() -> None:
    one, other = torch.zeros(3, 4), torch.zeros(5)
    assert parameters_of([one, other, one.T, one]) == 17
