"""What goes on inside a network while it answers: the embedded tokens, the states that layers leave, and their queries, keys and values.

The same view of all architectures, of student and teacher alike: hooks on the parts that ``recompress.models.architecture`` names. Queries and keys are seen as the
layer makes them, before any rotary position is put in; states of the last layer before a final norm. Layers that share one module are told apart by the order in
which they are called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.models.architecture import Layer, layers_of, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("query", "key", "value")
States = Float[Tensor, "batch length width"]


@dataclass
class Inside:
    """What the last forward pass left, by layer counted from 0. Tensors carry gradients where the pass did."""

    embeddings: States | None = None
    hidden: dict[int, States] = field(default_factory=dict)
    relations: dict[str, dict[int, States]] = field(default_factory=dict)
    """For ``query``, ``key`` and ``value``."""

    def clear(self) -> None:
        self.embeddings = None
        self.hidden, self.relations = {}, {part: {} for part in PARTS}


@contextmanager
def look_inside(network: PreTrainedModel, *, hidden: Collection[int] = (), relations: Collection[int] = (), embeddings: bool = False) -> Iterator[Inside]:
    """While the block runs, each forward pass leaves what is asked for: the states and the relations of these layers, and the embedded tokens."""
    seen = Inside()
    seen.clear()
    calls: dict[str, int] = {}
    layers = layers_of(network)

    def begin(_: nn.Module, given: Any) -> None:
        seen.clear()
        calls.clear()

    def turn(what: str) -> int:
        calls[what] = calls.get(what, -1) + 1
        return calls[what]

    def embedded(_: nn.Module, given: Any) -> None:
        if seen.embeddings is None:
            seen.embeddings = given[0]

    def left(_: nn.Module, given: Any, came: Any) -> None:
        if (layer := turn("hidden")) in hidden:
            seen.hidden[layer] = came[0] if isinstance(came, tuple) else came

    def related(layer: Layer, parts: tuple[str, ...]) -> Any:
        widths = list(relation_widths(layer))

        def keep(_: nn.Module, given: Any, came: Tensor) -> None:
            if (number := turn(parts[0])) in relations:
                several = torch.split(came, widths, dim=-1) if len(parts) > 1 else (came,)
                for part, states in zip(parts, several, strict=True):
                    seen.relations[part][number] = states

        return keep

    hooks = [network.base_model.register_forward_pre_hook(begin)]
    if embeddings:
        hooks.append(layers[0].module.register_forward_pre_hook(embedded))
    for layer in {id(one.module): one for one in layers}.values():
        if hidden:
            hooks.append(layer.module.register_forward_hook(left))
        if relations and layer.architecture.fused:
            hooks.append(layer.query.register_forward_hook(related(layer, PARTS)))
        elif relations:
            hooks += [getattr(layer, part).register_forward_hook(related(layer, (part,))) for part in PARTS]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def relation_widths(layer: Layer) -> tuple[int, int, int]:
    """Widths of a layer's queries, keys and values."""
    query, key, value = (shape_of(getattr(layer, part))[0] for part in PARTS)
    if layer.architecture.fused:  # one linear layer makes all three
        joined, query = query, shape_of(layer.out)[1]
        key = value = (joined - query) // 2
    return query, key, value
