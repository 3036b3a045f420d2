"""How much a head, a neuron or a layer matters. Scores compare parts of one kind; only their order counts.

Activation, for a head h and a neuron i, from forward passes alone:

    head[h]   = over examples( over tokens( ||a_h||_2 ) )         a_h: what the head hands to the layer's output projection
    neuron[i] = over examples( over tokens( |z_i| ) )             z_i: what the neuron hands to the second linear layer

where each ``over`` is a mean of absolute values or an L2 norm.
Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2, which takes z_i before the nonlinearity; here it is what reaches the next layer.

Block influence of a layer, from its input x_t and output y_t at each token:

    influence = 1 - mean_t( x_t . y_t / (||x_t|| ||y_t||) )

Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.architecture import Layer
from recompress.calibration import watch
from recompress.errors import IntegrityError
from recompress.runtimes.batches import Feature
from recompress.surgery import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Aggregation = Literal["mean", "l2"]


class Importance(NamedTuple):
    """Scores of one network: for each layer those of its heads and neurons, and one for the layer itself."""

    heads: list[Float[Tensor, " heads"]]
    neurons: list[Float[Tensor, " neurons"]]
    layers: Float[Tensor, " layers"]


def over_tokens(scores: Float[Tensor, "batch length parts"], text: Bool[Tensor, "batch length"], how: Aggregation) -> Float[Tensor, "batch parts"]:
    """One score for each example; padding counts for nothing."""
    kept = scores.double().masked_fill(~text[:, :, None], 0)
    return kept.abs().sum(1) / text.sum(1)[:, None] if how == "mean" else kept.square().sum(1).sqrt()


def over_examples(scores: Float[Tensor, "examples parts"], how: Aggregation) -> Float[Tensor, " parts"]:
    """One score for each part."""
    return scores.abs().mean(0) if how == "mean" else scores.square().sum(0).sqrt()


def influence(given: Float[Tensor, "tokens hidden"], came: Float[Tensor, "tokens hidden"]) -> Float[Tensor, " tokens"]:
    """1 - cosine similarity of each token's vector before and after a layer."""
    return 1 - torch.nn.functional.cosine_similarity(given.double(), came.double(), dim=-1)


def by_activation(network: PreTrainedModel, layers: Sequence[Layer], features: Sequence[Feature], *, tokens: Aggregation, examples: Aggregation) -> Importance:
    """All three kinds of scores in one pass over the features. Raises ``IntegrityError`` when activations are not finite."""
    heads: list[list[Tensor]] = [[] for _ in layers]
    neurons: list[list[Tensor]] = [[] for _ in layers]
    blocks: list[list[Tensor]] = [[] for _ in layers]

    def watch_heads(i: int, joined: Tensor, text: Tensor) -> None:
        heads[i].append(over_tokens(joined.reshape(*joined.shape[:2], -1, layers[i].head_size).norm(dim=-1), text, tokens))

    def watch_neurons(i: int, hidden: Tensor, text: Tensor) -> None:
        neurons[i].append(over_tokens(hidden, text, tokens))

    def watch_block(i: int, given: Tensor, came: Tensor, text: Tensor) -> None:
        blocks[i].append(influence(given[text], came[text]))

    watchers = {layer.out: lambda given, _, text, i=i: watch_heads(i, given, text) for i, layer in enumerate(layers)}
    watchers |= {layer.neurons_out: lambda given, _, text, i=i: watch_neurons(i, given, text) for i, layer in enumerate(layers)}
    watchers |= {layer.module: lambda given, came, text, i=i: watch_block(i, given, came, text) for i, layer in enumerate(layers)}
    watch(network, features, watchers)
    found = Importance(
        heads=[over_examples(torch.cat(rows), examples) for rows in heads],
        neurons=[over_examples(torch.cat(rows), examples) for rows in neurons],
        layers=torch.stack([torch.cat(rows).mean() for rows in blocks]),
    )
    if not all(scores.isfinite().all() for scores in (*found.heads, *found.neurons, found.layers)):
        raise IntegrityError("activations are not finite on the calibration text; the model is broken")
    return found


def by_magnitude(layer: Layer) -> tuple[Float[Tensor, " heads"], Float[Tensor, " neurons"]]:
    """L2 norms of all weights that belong to a head, and to a neuron."""
    joining = torch.cat([weight_of(layer.query), weight_of(layer.key), weight_of(layer.value), weight_of(layer.out).T], dim=1).double()
    feeding = torch.cat([*(weight_of(linear) for linear in layer.neurons_in), weight_of(layer.neurons_out).T], dim=1).double()
    return joining.reshape(layer.heads, -1).norm(dim=1), feeding.norm(dim=1)


def by_chance(layers: Sequence[Layer], seed: int) -> tuple[list[Float[Tensor, " heads"]], list[Float[Tensor, " neurons"]]]:
    """Scores that mean nothing: what any other importance has to beat."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(layer.heads, generator=draw) for layer in layers], [torch.rand(layer.neurons, generator=draw) for layer in layers]


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
