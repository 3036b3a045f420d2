"""Cutting a network in place: fewer outputs or inputs of a linear layer, fewer heads, neurons, hidden dimensions or layers; a network in stored shapes.

A linear layer is a ``Linear`` (weight ``[out, in]``) or GPT-2's ``Conv1D`` (weight ``[in, out]``); here both are seen as ``[out, in]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import Layer, Linear, architecture_of, is_linear, layers_of, outer_linears, shape_of, stream_norms

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weight_of(linear: Linear) -> Float[Tensor, "out in"]:
    """The weight as ``[out, in]``: a view, so that what is written to it is written to the layer; of a factored layer a copy of the product."""
    weight: Tensor = linear.weight.data
    return weight if isinstance(linear, nn.Linear) or not is_linear(linear) else weight.T


def query_key_value(layer: Layer) -> tuple[Float[Tensor, "asked in"], Float[Tensor, "told in"], Float[Tensor, "told in"]]:
    """The three weights of an attention, as views."""
    if layer.architecture.fused:
        query, key, value = weight_of(layer.query).chunk(3)
        return query, key, value
    return weight_of(layer.query), weight_of(layer.key), weight_of(layer.value)


def refuse_bound(layers: Sequence[Layer], name: str) -> None:
    """Raises ``InputError`` for layers that cannot be cut one by one: those made of two matrices, packed, or with weights that several share."""
    parts = [part for layer in layers for part in dict.fromkeys((layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out))]
    if not all(is_linear(part) for part in parts):
        raise InputError(f"{name} cannot cut linear layers that are factorized or packed already; put it before that step")
    if len({part.weight.data_ptr() for part in parts}) < len(parts):
        raise InputError(f"{name} cannot cut layers that share their weights; put it before that step")


def keep_outputs(linear: Linear, outputs: Sequence[int]) -> None:
    """Keep these outputs of a linear layer, in this order, with their biases."""
    rows = torch.as_tensor(outputs, dtype=torch.long)
    set_weight(linear, weight_of(linear)[rows])
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.data[rows].clone())


def keep_inputs(linear: Linear, inputs: Sequence[int]) -> None:
    """Keep these inputs of a linear layer, in this order."""
    set_weight(linear, weight_of(linear)[:, torch.as_tensor(inputs, dtype=torch.long)])


def keep_neurons(layer: Layer, neurons: Sequence[int]) -> None:
    """Keep these neurons of one layer."""
    for linear in layer.neurons_in:
        keep_outputs(linear, neurons)
    keep_inputs(layer.neurons_out, neurons)


def keep_heads(layer: Layer, heads: Sequence[int]) -> None:
    """Keep these query heads of one layer. With grouped queries, a key and value head goes when all of its query heads do, and those that stay keep equal
    numbers of them, one group after another: anything else is a mistake of the caller."""
    size, ratio = layer.head_size, layer.heads // layer.groups
    groups = list(dict.fromkeys(head // ratio for head in heads))
    assert [head // ratio for head in heads] == [group for group in groups for _ in range(len(heads) // len(groups))], "groups of different sizes"
    query_channels, key_channels = _channels(heads, size), _channels(groups, size)
    if layer.architecture.fused:
        width = layer.heads * size
        keep_outputs(layer.query, [part * width + channel for part in range(3) for channel in query_channels])
    else:
        keep_outputs(layer.query, query_channels)
        for linear in (layer.key, layer.value):
            keep_outputs(linear, key_channels)
    keep_inputs(layer.out, query_channels)
    note_shapes(layer)


def keep_hidden(network: PreTrainedModel, dimensions: Sequence[int], middle: Sequence[int] = ()) -> None:
    """Keep these dimensions of the residual stream, everywhere at once, and say so in the config. Heads keep their size.

    ``middle``: what stays of a head's middle layer (a pooler, for example), whose width a config ties to the hidden one.
    """
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    for layer in layers_of(network):
        for linear in dict.fromkeys((layer.query, layer.key, layer.value, *layer.neurons_in)):
            keep_inputs(linear, dimensions)
        for linear in (layer.out, layer.neurons_out):
            keep_outputs(linear, dimensions)
    *before, last = outer_linears(network)
    for linear in before:
        keep_inputs(linear, dimensions)
        keep_outputs(linear, middle)
    keep_inputs(last, middle if before else dimensions)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            module.weight = nn.Parameter(module.weight.data[:, torch.as_tensor(dimensions)].clone())
            module.embedding_dim = len(dimensions)
    for norm in stream_norms(network):
        _keep_of_norm(norm, dimensions)
    if tied:
        output.weight = embedding.weight
    _note_head_size(network)
    network.config.hidden_size = len(dimensions)


def keep_layers(network: PreTrainedModel, layers: Sequence[int]) -> None:
    """Keep these layers, in this order, and say so in the config."""
    path = architecture_of(network).layers
    modules = network.base_model.get_submodule(path)
    parent, _, name = path.rpartition(".")
    setattr(network.base_model.get_submodule(parent), name, nn.ModuleList(modules[i] for i in layers))
    network.config.num_hidden_layers = len(layers)
    note_kinds(network.config, layers)
    for layer in layers_of(network):
        attention: Any = layer.attention
        if hasattr(attention, "layer_idx"):
            attention.layer_idx = layer.index  # where a decoder keeps the layer's keys and values while it generates


def note_kinds(config: Any, layers: Sequence[int]) -> None:
    """Write into the config which of these layers, by their old numbers, see a window of the text and which the whole, where the family says so layer by layer."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kinds[i] for i in layers]


def note_neurons(network: PreTrainedModel) -> None:
    """Write the number of neurons into the config, where all layers have the same."""
    widths = {layer.neurons for layer in layers_of(network)}
    if len(widths) == 1:
        setattr(network.config, architecture_of(network).neurons_setting, widths.pop())


def _note_head_size(network: PreTrainedModel) -> None:
    """Write how many channels a head has into the config of a family whose heads may have any number, which else would be worked out anew from the widths."""
    if architecture_of(network).grouped:
        network.config.head_dim = layers_of(network)[0].head_size


def note_heads(network: PreTrainedModel) -> None:
    """Write the numbers of heads into the config, where all layers have the same and the config's idea of a head's size holds. Where it cannot say them, it
    says a number that divides the hidden width, as all configs want it, and transformers refuses the tensors because of their shapes."""
    _note_head_size(network)
    layers, config = layers_of(network), network.config
    shapes = {(layer.heads, layer.groups) for layer in layers}
    heads, groups = min(shapes)
    free = getattr(config, "head_dim", None) is not None
    if len(shapes) == 1 and config.hidden_size % heads == 0 and (free or config.hidden_size // heads == layers[0].head_size):
        config.num_attention_heads = heads
        if hasattr(config, "num_key_value_heads"):
            config.num_key_value_heads = groups
    elif config.hidden_size % config.num_attention_heads:
        config.num_attention_heads = max(n for n in range(1, config.num_attention_heads) if config.hidden_size % n == 0)


def fit_shapes(network: PreTrainedModel, stored: Mapping[str, Sequence[int]], head_size: int | None = None) -> None:
    """Give a freshly made network the stored shapes of its heads and neurons, and heads of ``head_size`` channels, where this is not what the config says.
    New parameters are empty: the caller fills them.

    Raises ``IntegrityError`` when another tensor differs from the config, or the stored shapes do not fit each other.
    """
    layers = layers_of(network)
    if head_size is not None:
        for layer in layers:
            attention: Any = layer.attention
            if getattr(network.config, "scale_attn_weights", True):
                attention.scaling *= (layer.head_size / head_size) ** 0.5
            setattr(attention, layer.architecture.head_size_attribute, head_size)
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
        note_shapes(layer)


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
        layer.groups > 0 and layer.heads % layer.groups == 0,
        all(shape_of(linear) == (neurons, hidden) for linear in layer.neurons_in),
        shape_of(layer.neurons_out)[0] == hidden,
        all(linear.bias is None or linear.bias.numel() == shape_of(linear)[0] for linear in (layer.query, layer.key, layer.value, *layer.neurons_in)),
    ]
    if not all(fits):
        raise IntegrityError(f"the stored shapes of layer {layer.index} do not fit each other")


def set_weight(linear: Linear, weight: Float[Tensor, "out in"]) -> None:
    stored = weight if isinstance(linear, nn.Linear) else weight.T
    linear.weight = nn.Parameter(stored.clone(memory_format=torch.contiguous_format))
    _note_shape(linear)


def _note_shape(linear: Linear) -> None:
    """Keep the numbers that a linear layer prints about itself true."""
    outputs, inputs = shape_of(linear)
    names = ("out_features", "in_features") if isinstance(linear, nn.Linear) else ("nf", "nx")
    for name, number in zip(names, (outputs, inputs), strict=True):
        setattr(linear, name, number)


def note_shapes(layer: Layer) -> None:
    """Keep the numbers true that an attention module goes by."""
    a = layer.architecture
    for name in a.heads_attributes:
        setattr(layer.attention, name, layer.heads)
    for name in a.width_attributes:
        setattr(layer.attention, name, layer.heads * layer.head_size)
    for name in a.ratio_attributes:
        setattr(layer.attention, name, layer.heads // layer.groups)


def _channels(heads: Sequence[int], size: int) -> list[int]:
    return [head * size + i for head in heads for i in range(size)]


def _keep_of_norm(norm: Any, dimensions: Sequence[int]) -> None:
    rows = torch.as_tensor(dimensions)
    norm.weight = nn.Parameter(norm.weight.data[rows].clone())
    if getattr(norm, "bias", None) is not None:
        norm.bias = nn.Parameter(norm.bias.data[rows].clone())
    if hasattr(norm, "normalized_shape"):
        norm.normalized_shape = (len(dimensions),)
