"""How many parts of a network stay where a share of them is to go: in each layer, or of all layers together."""

from __future__ import annotations

from collections.abc import Sequence

from recompress.errors import InputError
from recompress.methods.pruning.cut import Left
from recompress.models.architecture import Layer


def removed(share: float, count: int) -> int:
    """Whole parts in a share, rounded down; 0.29 of 100 is 29, whatever floats say."""
    return int(share * count + 1e-9)


def is_grouped(layers: Sequence[Layer]) -> bool:
    """Whether query heads share keys and values."""
    return any(layer.groups < layer.heads for layer in layers)


def left_of(counts: Sequence[int], share: float, scope: str) -> Left:
    """How many stay in each layer, or of all layers."""
    return [count - removed(share, count) for count in counts] if scope == "layer" else sum(counts) - removed(share, sum(counts))


def enough(what: str, counts: Sequence[int], share: float, scope: str) -> Left:
    """Raises ``InputError`` when a layer is left with none, or the share is less than one part anywhere."""
    left = left_of(counts, share, scope)
    if isinstance(left, int) and left < len(counts):
        raise InputError(f"{what}: {share:g} leaves {left} for {len(counts)} layers; each needs at least one")
    if share and (left if isinstance(left, int) else sum(left)) == sum(counts):
        raise InputError(f"{what}: {share:g} of {max(counts) if scope == 'layer' else sum(counts)} is less than one; ask for more, or leave it out")
    return left
