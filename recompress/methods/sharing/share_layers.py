"""Shared layers: groups of layers with one set of weights, stored once.

    N layers, M groups; layer i (from 0) uses the weights of group
    sequence:    floor(i M / N)                                               1 1 2 2 3 3
    cycle:       i mod M                                                      1 2 3 1 2 3
    cycle_rev:   i mod M, but M - 1 - (i mod M) in the last round             1 2 3 3 2 1
    weights of a group:  the mean of its layers, or those of the first

One group is ALBERT's. A network costs as much time as before; what was cut out is worth training back.
Source: Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1; Takase and Kiyono 2021, arXiv:2104.06022, algorithm 1 (sequence there for M that divides N).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import is_factored
from recompress.models.shared_layers import share, shares_of
from recompress.settings.base import Settings

CLOSE = 1e-6
"""As near as 32-bit floats come to a mean."""
LayerNumber = Annotated[int, Field(ge=0)]


class ShareLayers(Settings):
    """Which layers have the same weights, and which weights these are."""

    groups: Annotated[int, Field(ge=1)] | list[list[LayerNumber]] = 1
    """The number of different layers that are left, or the layers of each group by number, from 0; layers that are in none keep their own weights."""
    order: Literal["sequence", "cycle", "cycle_rev"] = "sequence"
    """Where ``groups`` is a number: neighbours share, or layers take turns, or these take turns and go back in the end."""
    weights: Literal["mean", "first"] = "mean"
    """The mean of a group's layers, or the first of them."""


def check(config: ShareLayers) -> None:
    """Raises ``InputError`` for lists that share nothing or overlap, or that come with an order."""
    if isinstance(config.groups, int):
        return
    every = [layer for group in config.groups for layer in group]
    if any(len(group) < 2 for group in config.groups) or not config.groups:
        raise InputError(f"groups lists at least two layers in each group, got {config.groups}; layers that are in none keep their weights")
    if len(set(every)) < len(every):
        raise InputError(f"groups names layer {next(layer for layer in every if every.count(layer) > 1)} twice; a layer is in one group at most")
    if "order" in config.model_fields_set:
        raise InputError("order says how a number of groups is spread over the layers; leave it out where groups lists them")


def shares_for(config: ShareLayers, layers: int) -> tuple[int, ...]:
    """For each layer the first one of its group. Raises ``InputError`` for more groups or other layers than there are."""
    if not isinstance(config.groups, int):
        for number in (number for group in config.groups for number in group if number >= layers):
            raise InputError(f"groups names layer {number}, but the model has {layers}, numbered from 0 to {layers - 1}")
        first = {number: min(group) for group in config.groups for number in group}
        return tuple(first.get(i, i) for i in range(layers))
    if config.groups > layers:
        raise InputError(f"share_layers leaves {config.groups} different layers, but the model has {layers}; ask for at most that many")
    group = [group_of(i, layers, config.groups, config.order) for i in range(layers)]
    return tuple(group.index(number) for number in group)


def group_of(layer: int, layers: int, groups: int, order: str) -> int:
    """The formulas at the head of this file."""
    if order == "sequence":
        return layer * groups // layers
    last_round = layer >= groups * (-(-layers // groups) - 1) and layer >= groups
    return groups - 1 - layer % groups if order == "cycle_rev" and last_round else layer % groups


def shared_weights(layers: Sequence[dict[str, Tensor]], how: str) -> dict[str, Float[Tensor, "..."]]:
    """The weights of a group from those of its layers, all of the same shapes."""
    if how == "first":
        return {name: tensor.clone() for name, tensor in layers[0].items()}
    return {name: torch.stack([layer[name] for layer in layers]).double().mean(0).to(tensor.dtype) for name, tensor in layers[0].items()}


def prove(before: Checkpoint, after: Checkpoint, config: ShareLayers, inputs: Inputs) -> list[Claim]:
    """One tensor where one was asked for, the numbers that are left, and the mean or the first of each group in them."""
    old, new = _weights(before), _weights(after)
    shares = shares_for(config, len(old))
    addresses = [tuple(tensor.data_ptr() for tensor in layer.values()) for layer in new]
    places = tuple(addresses.index(held) for held in addresses)
    gap = 0.0
    for source in set(shares):
        group = [layer for layer, first in zip(old, shares, strict=True) if first == source]
        for name, tensor in new[source].items():
            wanted = sum(layer[name].double() for layer in group) / len(group) if config.weights == "mean" else group[0][name]
            gap = max(gap, float((wanted - tensor).abs().max() / group[0][name].abs().max().clamp_min(1e-30)))
    once = {tensor.data_ptr(): tensor.numel() for layer in new for tensor in layer.values()}
    return [
        Claim("different layers", len(set(shares)), len(set(addresses))),
        Claim("layers that use the weights they were told to", len(shares), sum(a == b for a, b in zip(shares, places, strict=True))),
        Claim("numbers in all layers, each once", sum(tensor.numel() for i in set(shares) for tensor in old[i].values()), sum(once.values())),
        Claim(f"largest distance from the {config.weights} of a group, as a share of its largest weight", 0, gap, CLOSE),
    ]


@method(
    "share_layers",
    ShareLayers,
    family="sharing",
    prove=prove,
    check=check,
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="Lan et al. 2020 (ALBERT), arXiv:1909.11942, section 3.1; Takase and Kiyono 2021, arXiv:2104.06022, algorithm 1",
    shrinks="parameters and bytes",
    speeds_up="nothing: every layer is still computed",
)
def share_layers(checkpoint: Checkpoint, config: ShareLayers, inputs: Inputs) -> Checkpoint:
    """Groups of layers with one set of weights, stored once."""
    network = checkpoint.torch_network
    weights = _weights(checkpoint)
    shares, already = shares_for(config, len(weights)), shares_of(network)
    if is_factored(network) and config.weights == "mean":
        raise InputError("layers that are factored have no mean; share them before they are factored, or use weights: first")
    if shares == already:
        raise InputError(
            f"share_layers leaves {len(set(shares))} different layers, and the model has as many already; ask for fewer groups, or leave the step out"
        )
    for i, source in enumerate(already):
        if shares[i] != shares[source]:
            raise InputError(f"layers {source} and {i} share their weights already; put both in one group")
    for i, source in enumerate(shares):
        shapes = [{name: tensor.shape for name, tensor in weights[layer].items()} for layer in (source, i)]
        if any(one != other for one, other in pairwise(shapes)):
            raise InputError(f"layers {source} and {i} have different shapes and cannot share their weights; put them in different groups")
    shared_tensors = {source: shared_weights([weights[i] for i in range(len(shares)) if shares[i] == source], config.weights) for source in set(shares)}
    share(network, shares)
    for source, tensors in shared_tensors.items():
        for name, tensor in tensors.items():
            weights[source][name].copy_(tensor)
    return checkpoint


def _weights(checkpoint: Checkpoint) -> list[dict[str, Tensor]]:
    """The parameters of each layer, as views."""
    return [{name: tensor.detach() for name, tensor in layer.module.named_parameters()} for layer in layers_of(checkpoint.torch_network)]
