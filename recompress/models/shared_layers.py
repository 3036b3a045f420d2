"""Layers with one set of weights. Each layer keeps a module of its own, because decoders number them; what holds weights in it is the other layer's.

``shares`` has the number of a layer for each layer: its own, or that of an earlier one whose weights it uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from recompress.errors import IntegrityError
from recompress.models.architecture import layers_of
from recompress.models.factored import FactoredLinear
from recompress.models.packed import Packed, place

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shares_of(network: PreTrainedModel) -> tuple[int, ...]:
    """For each layer the first one that has the same weights, not merely equal ones."""
    held = [tuple(id(part) for _, part in _parts(layer.module)) for layer in layers_of(network)]
    return tuple(held.index(parts) for parts in held)


def share(network: PreTrainedModel, shares: Sequence[int]) -> None:
    """Let each layer use the weights of the layer that ``shares`` names."""
    layers = [layer.module for layer in layers_of(network)]
    for i, source in enumerate(shares):
        if source != i:
            for name, part in list(_parts(layers[source])):
                place(layers[i], name, part)


def fit_shares(network: PreTrainedModel, shares: Sequence[int]) -> None:
    """What ``share`` does, for a network that is read back; nothing for an empty list. Raises ``IntegrityError`` for a list that makes no sense."""
    if not shares:
        return
    count = len(layers_of(network))
    if len(shares) != count or any(not 0 <= source <= i or shares[source] != source for i, source in enumerate(shares)):
        raise IntegrityError(f"the layers' shares {list(shares)} do not fit {count} layers; each names itself or an earlier layer that names itself")
    share(network, shares)


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What holds weights: linear layers, norms, and what stands in their place."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, Packed | FactoredLinear) or any(parameter is not None for parameter in child._parameters.values()):
            yield path, child
        else:
            yield from _parts(child, f"{path}.")
