"""Which parts of a network stay, chosen by their scores, and the cut itself. What is left is a smaller dense network.

With grouped queries (several query heads that share one key and value head) a group stays or goes whole, and those that stay keep equally many query heads:
so many of the strongest in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.models.architecture import layers_of, outer_linears, shape_of
from recompress.models.surgery import keep_heads, keep_hidden, keep_layers, keep_neurons, note_heads, note_neurons, weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Left = Sequence[int] | int
"""How many stay: in each layer, or of all layers together."""


class Cut(NamedTuple):
    """What stays, by position."""

    layers: list[int]
    heads: list[list[int]]
    """Query heads of each layer that stays."""
    neurons: list[list[int]]
    """Neurons of each layer that stays."""
    hidden: list[int]


def strongest(scores: Float[Tensor, " parts"], count: int) -> list[int]:
    """The positions of the ``count`` largest scores, in their order of position; of equal scores the first stays."""
    return sorted(torch.argsort(scores, descending=True, stable=True)[:count].tolist())


def strongest_overall(scores: Sequence[Float[Tensor, " parts"]], count: int) -> list[list[int]]:
    """The ``count`` strongest parts of all layers together, at least one in each. Scores are divided by their layer's L2 norm, so that layers compare
    (Molchanov et al. 2017, arXiv:1611.06440, section 2.2)."""
    scaled = [layer.double() / layer.double().norm().clamp_min(1e-30) for layer in scores]
    for layer in scaled:
        layer[layer.argmax()] = torch.inf
    ends = torch.tensor([len(layer) for layer in scaled]).cumsum(0).tolist()
    chosen = strongest(torch.cat(scaled), count)
    return [[i - end + len(layer) for i in chosen if end - len(layer) <= i < end] for layer, end in zip(scaled, ends, strict=True)]


def pick(scores: Sequence[Float[Tensor, " parts"]], left: Left) -> list[list[int]]:
    """The strongest parts of each layer, or of all together."""
    if isinstance(left, int):
        return strongest_overall(scores, left)
    return [strongest(layer, count) for layer, count in zip(scores, left, strict=True)]


def pick_heads(scores: Sequence[Float[Tensor, " heads"]], groups: Sequence[int], left: Left, left_of_each: Left) -> list[list[int]]:
    """The query heads that stay in each layer: of ``left`` groups the strongest heads, ``left_of_each`` of every one.

    A group's score is the L2 norm of its heads' scores; where each head has its own keys and values, a group is a head.
    """
    shaped = [layer.double().view(count, -1) for layer, count in zip(scores, groups, strict=True)]
    remaining_groups = pick([layer.norm(dim=1) for layer in shaped], left)
    ranked = [layer[stay].sort(dim=1, descending=True, stable=True) for layer, stay in zip(shaped, remaining_groups, strict=True)]
    # The first of every group, the second of every group and so on: what all groups lose together.
    ranks = pick([layer.values.norm(dim=0) for layer in ranked], left_of_each)
    return [
        [group * shape.shape[1] + head for group, order in zip(stay, layer.indices.tolist(), strict=True) for head in sorted(order[: len(rank)])]
        for shape, stay, layer, rank in zip(shaped, remaining_groups, ranked, ranks, strict=True)
    ]


def apply_cut(network: PreTrainedModel, cut: Cut) -> None:
    """Take everything else out of the network, in place, and say so in its config where that can say it."""
    layers = layers_of(network)
    for i, heads, neurons in zip(cut.layers, cut.heads, cut.neurons, strict=True):
        if len(heads) < layers[i].heads:
            keep_heads(layers[i], heads)
        if len(neurons) < layers[i].neurons:
            keep_neurons(layers[i], neurons)
    if len(cut.layers) < len(layers):
        keep_layers(network, cut.layers)
    if len(cut.hidden) < shape_of(layers[0].out)[0]:
        keep_hidden(network, cut.hidden, _middle(network, len(cut.hidden)))
    note_neurons(network)
    note_heads(network)


def _middle(network: PreTrainedModel, count: int) -> list[int]:
    """What stays of a head's middle layer (a pooler, for example): the outputs with the largest weights before and after them."""
    *before, last = outer_linears(network)
    sizes = sum((weight_of(linear).double().square().sum(1) for linear in before), weight_of(last).double().square().sum(0))
    return strongest(sizes, count) if before else []
