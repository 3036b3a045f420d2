"""Shapes that a network can be cut to: how many parameters each has, and which of them keep within a budget. All layers of a shape are equally wide."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from recompress.errors import InputError
from recompress.models.architecture import Linear, is_norm, layers_of, outer_linears, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 16
"""Values of a width that are looked at: every sixteenth of what is there."""


class Shape(NamedTuple):
    """What a network is as large as."""

    layers: int
    groups: int
    """Key and value heads of a layer."""
    heads_of_each: int
    """Query heads for each of them."""
    neurons: int
    hidden: int


def shape_now(network: PreTrainedModel) -> Shape:
    """Raises ``InputError`` where the layers have different widths."""
    layers = layers_of(network)
    layer_shapes = {(layer.groups, layer.heads // layer.groups, layer.neurons) for layer in layers}
    if len(layer_shapes) > 1:
        raise InputError("search needs layers that are all equally wide; put it before steps that cut some layers more than others")
    return Shape(len(layers), *layer_shapes.pop(), shape_of(layers[0].out)[0])


class Sizes(NamedTuple):
    """How the number of a network's parameters follows from its shape."""

    fixed: int
    rows: int
    """Vectors of the hidden width outside of the layers: embeddings, norms, and the rows of the last linear layer."""
    squares: int
    """Linear layers there that are as wide as they are long."""
    vectors: int
    """Vectors of the hidden width in a layer: norms and biases."""
    of_head: int
    """Vectors of a head's size in a layer: norms of heads."""
    gates: int
    """Linear layers that feed a neuron."""
    biases: tuple[int, int, int]
    """Of each channel of the queries, of each of keys and values, and of each neuron."""
    head_size: int

    def of(self, shape: Shape) -> int:
        """Parameters of a network of this shape."""
        return self.fixed + self.rows * shape.hidden + self.squares * shape.hidden**2 + self.of_layers(shape)

    def of_layers(self, shape: Shape) -> int:
        """Those of its layers alone."""
        key_channels = shape.groups * self.head_size
        query_channels, hidden = key_channels * shape.heads_of_each, shape.hidden
        attention = query_channels * (2 * hidden + self.biases[0]) + key_channels * (2 * hidden + self.biases[1])
        return shape.layers * (self.vectors * hidden + self.of_head * self.head_size + attention + shape.neurons * ((self.gates + 1) * hidden + self.biases[2]))


def sizes_of(network: PreTrainedModel) -> Sizes:
    """Counted on the first layer, which the others are like, and on all that is no layer."""
    layers = layers_of(network)
    first = layers[0]
    inside = {id(module) for layer in layers for module in layer.module.modules()}
    outside = [module for module in network.modules() if id(module) not in inside]
    *before, last = outer_linears(network)
    tied = last.weight is network.get_input_embeddings().weight
    rows = sum(_vectors(module) for module in outside) + sum(map(_bias, before)) + (0 if tied else shape_of(last)[0])
    return Sizes(
        fixed=_bias(last) * shape_of(last)[0],
        rows=rows,
        squares=len(before),
        vectors=sum(map(_vectors, first.norms)) + _bias(first.out) + _bias(first.neurons_out),
        of_head=len(first.architecture.head_norms),
        gates=len(first.neurons_in),
        biases=(_bias(first.query), _bias(first.key) + _bias(first.value), sum(map(_bias, first.neurons_in))),
        head_size=first.head_size,
    )


def every_shape(now: Shape, smallest: float, vary: Sequence[str]) -> list[Shape]:
    """All shapes, in order. Only the axes in ``vary`` differ from what is there, none by more than to the share ``smallest`` of it."""

    def values(axis: str, there: int, steps: int) -> list[int]:
        few = [there * step // steps for step in range(1, steps + 1)]
        return sorted({value for value in few if value >= max(1, smallest * there)}) if axis in vary else [there]

    grid = itertools.product(
        values("layers", now.layers, now.layers),
        values("heads", now.groups, now.groups),
        values("heads", now.heads_of_each, now.heads_of_each),
        values("neurons", now.neurons, STEPS),
        values("hidden", now.hidden, STEPS),
    )
    return list(itertools.starmap(Shape, grid))


def shapes_within(network: PreTrainedModel, share: float, tolerance: float, smallest: float, vary: Sequence[str]) -> list[Shape]:
    """All of these that have ``share`` of the network's parameters, give or take ``tolerance`` of these. Raises ``InputError`` where there is none."""
    now, sizes = shape_now(network), sizes_of(network)
    wanted = share * sizes.of(now)
    every = {shape: sizes.of(shape) for shape in every_shape(now, smallest, vary)}
    candidates = [shape for shape, size in every.items() if abs(size - wanted) <= tolerance * wanted]
    if not candidates:
        least, most = min(every.values()), max(every.values())
        raise InputError(
            f"search finds no shape within {tolerance:.0%} of {wanted:,.0f} parameters (those that it may choose have from {least:,} to {most:,}); "
            "change parameters, lower smallest, or let more vary"
        )
    return candidates


def _bias(linear: Linear) -> int:
    return int(linear.bias is not None)


def _vectors(module: nn.Module) -> int:
    """Vectors of the hidden width that a norm or an embedding holds."""
    if is_norm(module):
        return sum(1 for _ in module.parameters())
    return int(module.weight.shape[0]) if isinstance(module, nn.Embedding) else 0
