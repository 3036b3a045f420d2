"""Cutting a network in place: fewer outputs or inputs of a linear layer, fewer heads, neurons or layers, and a network rebuilt in stored shapes.

A linear layer is a ``Linear`` (weight ``[out, in]``) or GPT-2's ``Conv1D`` (weight ``[in, out]``); here both are seen as ``[out, in]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.architecture import Layer, Linear, architecture_of, layers_of, shape_of
from recompress.errors import IntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weight_of(linear: Linear) -> Float[Tensor, "out in"]:
    """The weight as ``[out, in]``: a view, so that what is written to it is written to the layer."""
    weight: Tensor = linear.weight.data
    return weight if isinstance(linear, nn.Linear) else weight.T


def keep_outputs(linear: Linear, kept: Sequence[int]) -> None:
    """Keep these outputs of a linear layer, in this order, with their biases."""
    rows = torch.as_tensor(kept, dtype=torch.long)
    _set_weight(linear, weight_of(linear)[rows])
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.data[rows].clone())


def keep_inputs(linear: Linear, kept: Sequence[int]) -> None:
    """Keep these inputs of a linear layer, in this order."""
    _set_weight(linear, weight_of(linear)[:, torch.as_tensor(kept, dtype=torch.long)])


def keep_neurons(layer: Layer, kept: Sequence[int]) -> None:
    """Keep these neurons of one layer."""
    for linear in layer.neurons_in:
        keep_outputs(linear, kept)
    keep_inputs(layer.neurons_out, kept)


def keep_heads(layer: Layer, kept: Sequence[int]) -> None:
    """Keep these heads of one layer, each with as many query, key and value heads. Grouped queries and fused layers are refused by an assertion:
    no method that cuts heads declares an architecture which has them."""
    assert not layer.architecture.fused, "fused attention"
    assert shape_of(layer.query) == shape_of(layer.key) == shape_of(layer.value), "grouped queries"
    size = layer.head_size
    channels = [head * size + i for head in kept for i in range(size)]
    for linear in (layer.query, layer.key, layer.value):
        keep_outputs(linear, channels)
    keep_inputs(layer.out, channels)
    _note_heads(layer)


def keep_layers(network: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep these layers, in this order, and say so in the config."""
    path = architecture_of(network).layers
    modules = network.base_model.get_submodule(path)
    parent, _, name = path.rpartition(".")
    setattr(network.base_model.get_submodule(parent), name, nn.ModuleList(modules[i] for i in kept))
    network.config.num_hidden_layers = len(kept)


def note_neurons(network: PreTrainedModel) -> None:
    """Write the number of neurons into the config, where all layers have the same."""
    widths = {layer.neurons for layer in layers_of(network)}
    if len(widths) == 1:
        setattr(network.config, architecture_of(network).neurons_setting, widths.pop())


def fit_shapes(network: PreTrainedModel, stored: Mapping[str, Sequence[int]]) -> None:
    """Give a freshly made network the stored shapes of its heads and neurons. New parameters are empty: the caller fills them.

    Raises ``IntegrityError`` when another tensor differs from the config, or the stored shapes do not fit each other.
    """
    layers = layers_of(network)
    may_differ = {id(part) for layer in layers for part in (layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out)}
    for name, parameter in list(network.named_parameters()):
        shape = tuple(stored.get(name, parameter.shape))
        if shape == tuple(parameter.shape):
            continue
        owner, _, leaf = name.rpartition(".")
        module = network.get_submodule(owner)
        if id(module) not in may_differ or len(shape) != parameter.ndim:
            raise IntegrityError(f"{name} is stored as {list(shape)}, the config says {list(parameter.shape)}")
        setattr(module, leaf, nn.Parameter(torch.empty(shape)))
        _note_shape(module)
    for layer in layers:
        _check_fit(layer)
        _note_heads(layer)


def parameters_of(tensors: Iterable[Tensor]) -> int:
    """Numbers in distinct tensors: one that is shared counts once."""
    return sum({tensor.data_ptr(): tensor.numel() for tensor in tensors}.values())


def _check_fit(layer: Layer) -> None:
    hidden = shape_of(layer.out)[0]
    joined, size = shape_of(layer.out)[1], layer.head_size
    neurons = shape_of(layer.neurons_out)[1]
    asked = 3 * joined if layer.architecture.fused else joined
    fits = [
        joined >= size and joined % size == 0,
        shape_of(layer.query) == (asked, hidden),
        shape_of(layer.key) == shape_of(layer.value),
        shape_of(layer.key)[1] == hidden and shape_of(layer.key)[0] % size == 0,
        all(shape_of(linear) == (neurons, hidden) for linear in layer.neurons_in),
        shape_of(layer.neurons_out)[0] == hidden,
        all(linear.bias is None or linear.bias.numel() == shape_of(linear)[0] for linear in (layer.query, layer.key, layer.value, *layer.neurons_in)),
    ]
    if not all(fits):
        raise IntegrityError(f"the stored shapes of layer {layer.index} do not fit each other")


def _set_weight(linear: Linear, weight: Float[Tensor, "out in"]) -> None:
    stored = weight if isinstance(linear, nn.Linear) else weight.T
    linear.weight = nn.Parameter(stored.clone(memory_format=torch.contiguous_format))
    _note_shape(linear)


def _note_shape(linear: Linear) -> None:
    """Keep the numbers that a linear layer prints about itself true."""
    outputs, inputs = shape_of(linear)
    names = ("out_features", "in_features") if isinstance(linear, nn.Linear) else ("nf", "nx")
    for name, number in zip(names, (outputs, inputs), strict=True):
        setattr(linear, name, number)


def _note_heads(layer: Layer) -> None:
    for name in layer.architecture.heads_attributes:
        setattr(layer.attention, name, layer.heads)
    for name in layer.architecture.width_attributes:
        setattr(layer.attention, name, layer.heads * layer.head_size)
