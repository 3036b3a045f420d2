"""How much a head, a neuron, a hidden dimension or a layer matters. Scores compare parts of one kind; only their order counts.

Activation, for a head h, a neuron i and a dimension d of the residual stream, from forward passes alone:

    head[h]   = over examples( over tokens( ||a_h||_2 ) )                     a_h: what the head hands to the layer's output projection
    neuron[i] = over examples( over tokens( |z_i| ) )                         z_i: what the neuron hands to the second linear layer
    hidden[d] = sum over norms( over examples( over tokens( |n_d| ) ) )       n_d: what a norm inside a layer gives

where each ``over`` is a mean of absolute values or an L2 norm.
Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2, which takes z_i before the nonlinearity; here it is what reaches the next layer.

Block influence of a layer, from its input x_t and output y_t at each token:

    influence = 1 - mean_t( x_t . y_t / (||x_t|| ||y_t||) )

Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1.

Magnitude is the L2 norm of all weights that belong to a part; of keys and values that several heads share, each head owns its portion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recompress.errors import IntegrityError
from recompress.methods.calibration import Watcher, watch
from recompress.models.architecture import Layer, shape_of
from recompress.models.surgery import query_key_value, weight_of
from recompress.runtimes.batches import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Aggregation = Literal["mean", "l2"]


class Parts(NamedTuple):
    """Scores of what a network's layers are wide with."""

    heads: list[Float[Tensor, " heads"]]
    """For each layer, of its query heads."""
    neurons: list[Float[Tensor, " neurons"]]
    """For each layer."""
    hidden: Float[Tensor, " hidden"]


def over_tokens(scores: Float[Tensor, "batch length parts"], text: Bool[Tensor, "batch length"], how: Aggregation) -> Float[Tensor, "batch parts"]:
    """One score for each example; padding counts for nothing."""
    text_scores = scores.double().masked_fill(~text[:, :, None], 0)
    return text_scores.abs().sum(1) / text.sum(1)[:, None] if how == "mean" else text_scores.square().sum(1).sqrt()


def over_examples(scores: Float[Tensor, "examples parts"], how: Aggregation) -> Float[Tensor, " parts"]:
    """One score for each part."""
    return scores.abs().mean(0) if how == "mean" else scores.square().sum(0).sqrt()


def influence(given: Float[Tensor, "tokens hidden"], came: Float[Tensor, "tokens hidden"]) -> Float[Tensor, " tokens"]:
    """1 - cosine similarity of each token's vector before and after a layer."""
    return 1 - nn.functional.cosine_similarity(given.double(), came.double(), dim=-1)


def by_activation(
    network: PreTrainedModel, layers: Sequence[Layer], features: Sequence[Feature], *, tokens: Aggregation, examples: Aggregation
) -> tuple[Parts, Float[Tensor, " layers"]]:
    """All scores, and the layers' influences, in one pass over the features. Raises ``IntegrityError`` when activations are not finite."""
    heads: list[list[Tensor]] = [[] for _ in layers]
    neurons: list[list[Tensor]] = [[] for _ in layers]
    blocks: list[list[Tensor]] = [[] for _ in layers]
    norms = {norm: list[Tensor]() for layer in layers for norm in layer.norms}

    def watch_heads(i: int) -> Watcher:
        return lambda given, _, text: heads[i].append(over_tokens(given.reshape(*given.shape[:2], -1, layers[i].head_size).norm(dim=-1), text, tokens))

    def watch_neurons(i: int) -> Watcher:
        return lambda given, _, text: neurons[i].append(over_tokens(given, text, tokens))

    def watch_block(i: int) -> Watcher:
        return lambda given, came, text: blocks[i].append(influence(given[text], came[text]))

    def watch_norm(norm: nn.Module) -> Watcher:
        return lambda _, came, text: norms[norm].append(over_tokens(came, text, tokens))

    watchers: dict[nn.Module, Watcher] = {norm: watch_norm(norm) for norm in norms}
    for i, layer in enumerate(layers):
        watchers |= {layer.out: watch_heads(i), layer.neurons_out: watch_neurons(i), layer.module: watch_block(i)}
    watch(network, features, watchers)
    parts = Parts(
        heads=[over_examples(torch.cat(rows), examples) for rows in heads],
        neurons=[over_examples(torch.cat(rows), examples) for rows in neurons],
        hidden=torch.stack([over_examples(torch.cat(rows), examples) for rows in norms.values()]).sum(0),
    )
    influences = torch.stack([torch.cat(rows).mean() for rows in blocks])
    check_finite(*parts.heads, *parts.neurons, parts.hidden, influences)
    return parts, influences


def check_finite(*scores: Tensor) -> None:
    """Raises ``IntegrityError`` for scores that are no numbers."""
    if not all(tensor.isfinite().all() for tensor in scores):
        raise IntegrityError("activations are not finite on the calibration text; the model is broken")


def by_magnitude(layers: Sequence[Layer]) -> Parts:
    """L2 norms of the weights that belong to a head, to a neuron, and, over all layers, to a hidden dimension."""
    hidden = torch.zeros(shape_of(layers[0].out)[0], dtype=torch.float64)
    for layer in layers:
        for linear in dict.fromkeys((layer.query, layer.key, layer.value, *layer.neurons_in)):
            hidden += weight_of(linear).double().square().sum(0)
        for linear in (layer.out, layer.neurons_out):
            hidden += weight_of(linear).double().square().sum(1)
    return Parts([_sizes_of_heads(layer) for layer in layers], [_sizes_of_neurons(layer) for layer in layers], hidden.sqrt())


def by_chance(layers: Sequence[Layer], seed: int) -> Parts:
    """Scores that mean nothing: what any other importance has to beat."""
    draw = torch.Generator().manual_seed(seed)
    heads = [torch.rand(layer.heads, generator=draw) for layer in layers]
    neurons = [torch.rand(layer.neurons, generator=draw) for layer in layers]
    return Parts(heads, neurons, torch.rand(shape_of(layers[0].out)[0], generator=draw))


def _sizes_of_heads(layer: Layer) -> Float[Tensor, " heads"]:
    query, key, value = (part.double().square().sum(1) for part in query_key_value(layer))
    own = (query + weight_of(layer.out).double().square().sum(0)).view(layer.heads, -1).sum(1)
    ratio = layer.heads // layer.groups
    return (own + (key + value).view(layer.groups, -1).sum(1).repeat_interleave(ratio) / ratio).sqrt()


def _sizes_of_neurons(layer: Layer) -> Float[Tensor, " neurons"]:
    feeding = torch.cat([*(weight_of(linear) for linear in layer.neurons_in), weight_of(layer.neurons_out).T], dim=1).double()
    return feeding.square().sum(1).sqrt()
