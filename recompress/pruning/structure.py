"""Structure: cut out whole heads, neurons and layers, so that what is left is a smaller dense model that runs faster everywhere.

The least important parts go (``recompress.pruning.importance``); a network that has lost heads and neurons answers exactly like one in which their outputs
are multiplied by zero. Scores are taken once, on the whole network, before anything is cut.

Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2 (heads and neurons); Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1 (layers);
Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3 (evenly spread layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.architecture import Layer, layers_of
from recompress.calibration import calibration_features
from recompress.checkpoint import Checkpoint
from recompress.errors import InputError
from recompress.method import Claim, Inputs, method
from recompress.pruning.importance import Aggregation, Importance, by_activation, by_chance, by_magnitude, strongest, strongest_overall
from recompress.settings import Settings, Share
from recompress.surgery import keep_heads, keep_layers, keep_neurons, note_neurons


class PruneStructure(Settings):
    """What goes, and how it is chosen."""

    heads: Share = 0.0
    """Share of the attention heads to remove, rounded down to whole heads."""
    neurons: Share = 0.0
    """Share of the neurons of the feed-forward parts to remove, rounded down to whole neurons."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Number of layers to keep; all when left out."""
    importance: Literal["activation", "magnitude", "random"] = "activation"
    """What makes a head or a neuron worth keeping: what it does on training text, the size of its weights, or nothing (for comparison)."""
    keep_layers: Literal["influence", "first", "last", "spread"] = "influence"
    """Which layers stay: those that change their input most, the first, the last, or evenly spread ones (every second, where half are kept)."""
    scope: Literal["layer", "global"] = "layer"
    """Take the share from every layer, or from all layers together, so that a layer that matters less loses more (at least one part of each stays)."""
    over_tokens: Aggregation = "mean"
    """How a part's activations on the tokens of an example become one number."""
    over_examples: Aggregation = "l2"
    """How these become one score."""
    calibration_examples: Annotated[int, Field(ge=1)] = 256
    """Training examples that are looked at."""


def prove(before: Checkpoint, after: Checkpoint, config: PruneStructure) -> list[Claim]:
    """Layers, heads and neurons counted on the weights that were read back."""
    old, new = layers_of(before.torch_network), layers_of(after.torch_network)
    layers = config.layers or len(old)
    # Where layers are dropped all have the same widths (others are refused), so that any of them can stand for those that stayed.
    kept = old if layers == len(old) else old[:layers]
    return [
        Claim("layers", layers, len(new)),
        Claim("heads", _left([layer.heads for layer in kept], config.heads, config.scope), sum(layer.heads for layer in new)),
        Claim("neurons", _left([layer.neurons for layer in kept], config.neurons, config.scope), sum(layer.neurons for layer in new)),
    ]


@method(
    "prune_structure",
    PruneStructure,
    family="pruning",
    prove=prove,
    needs=("calibration",),
    source="Muralidharan et al. 2024, arXiv:2407.14679, section 2.2; Men et al. 2024, arXiv:2403.03853, eq. 1",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, about as much as it shrinks",
)
def prune_structure(checkpoint: Checkpoint, config: PruneStructure, inputs: Inputs) -> Checkpoint:
    """Cut out the heads, neurons and layers that matter least."""
    network = checkpoint.torch_network
    layers = layers_of(network)
    _refuse(layers, config)
    scores = _importance(checkpoint, layers, config, inputs)
    stay = chosen_layers(config, scores.layers)
    heads = _chosen([scores.heads[i] for i in stay], config.heads, config.scope, "heads")
    neurons = _chosen([scores.neurons[i] for i in stay], config.neurons, config.scope, "neurons")
    for i, kept_heads, kept_neurons in zip(stay, heads, neurons, strict=True):
        if len(kept_heads) < layers[i].heads:
            keep_heads(layers[i], kept_heads)
        if len(kept_neurons) < layers[i].neurons:
            keep_neurons(layers[i], kept_neurons)
    if len(stay) < len(layers):
        keep_layers(network, stay)
    note_neurons(network)
    return checkpoint


def chosen_layers(config: PruneStructure, influences: Float[Tensor, " layers"]) -> list[int]:
    """The positions of the layers that stay, in order."""
    there = len(influences)
    count = config.layers or there
    if config.keep_layers == "influence":
        return strongest(influences, count)
    if config.keep_layers == "spread":
        return [i * there // count for i in range(count)]
    return list(range(count) if config.keep_layers == "first" else range(there - count, there))


def removed(share: float, count: int) -> int:
    """Whole parts in a share, rounded down; 0.29 of 100 is 29, whatever floats say."""
    return int(share * count + 1e-9)


def _refuse(layers: Sequence[Layer], config: PruneStructure) -> None:
    wanted = config.layers or len(layers)
    if wanted > len(layers):
        raise InputError(f"prune_structure keeps {wanted} layers, but the model has {len(layers)}; ask for at most that many")
    if wanted < len(layers) and len({(layer.heads, layer.neurons) for layer in layers}) > 1:
        raise InputError("prune_structure cannot drop layers where they have different widths already; drop layers first")


def _importance(checkpoint: Checkpoint, layers: Sequence[Layer], config: PruneStructure, inputs: Inputs) -> Importance:
    """Scores of everything that a choice depends on; forward passes only where one does."""
    parts = config.heads > 0 or config.neurons > 0
    drops = config.layers is not None and config.layers < len(layers)
    if (parts and config.importance == "activation") or (drops and config.keep_layers == "influence"):
        features = calibration_features(checkpoint, inputs, config.calibration_examples)
        seen = by_activation(checkpoint.torch_network, layers, features, tokens=config.over_tokens, examples=config.over_examples)
    else:
        seen = Importance([torch.zeros(layer.heads) for layer in layers], [torch.zeros(layer.neurons) for layer in layers], torch.zeros(len(layers)))
    if config.importance == "activation":
        return seen
    if config.importance == "random":
        heads, neurons = by_chance(layers, inputs.seed)
    else:
        heads, neurons = map(list, zip(*(by_magnitude(layer) for layer in layers), strict=True))
    return Importance(heads, neurons, seen.layers)


def _chosen(scores: Sequence[Float[Tensor, " parts"]], share: float, scope: str, what: str) -> list[list[int]]:
    if scope == "layer":
        return [strongest(layer, len(layer) - removed(share, len(layer))) for layer in scores]
    left = _left([len(layer) for layer in scores], share, scope)
    if left < len(scores):
        raise InputError(f"{what}: {share:g} leaves {left} for {len(scores)} layers; each needs at least one")
    return strongest_overall(scores, left)


def _left(counts: Sequence[int], share: float, scope: str) -> int:
    groups = counts if scope == "layer" else [sum(counts)]
    return sum(count - removed(share, count) for count in groups)
