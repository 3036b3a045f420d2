"""Rotate: turn the residual stream of a decoder, so that no channel holds much more than the others; it answers as before, and rounds better.

    x' = x Q                              Q: a random rotation with even entries (``recompress.methods.quantization.hadamard``)
    W' = W diag(g) Q                      matrices that read the stream behind a norm with the scale g, which becomes 1; the output layer too
    W' = Q^T W,  b' = Q^T b               matrices that write to it, and E' = E Q of the embeddings
    V' = R^T V,  O' = O R                 values of each head, and the columns of the matrix that reads them; R a rotation of one head

since an RMS norm without a scale does not see a rotation, norm(x Q) = norm(x) Q, and nothing else stands between what writes and what reads. All of it is in the
weights: nothing is computed at run time that was not before. What QuaRot also turns while the model runs (queries and keys behind their positions, the neurons, inputs
in 4 bits) is left out.

An output layer that is tied to the embeddings becomes one of its own: of one matrix, E Q would have to be E diag(g) Q Q' for some scale Q' that a norm can hold, which
is so only where Q mixes channels of equal g. That costs vocabulary x width numbers (28 million of SmolLM2-135M, 113 MB in 32 bits). Where all of the last g is one
number it stays in its norm, and the tie stays. ``stream: false`` turns the heads alone and costs nothing.

It does not pay behind everything. On SmolLM2-135M the scales g are small where the stream is large, and so make little of what is rounded there; once they are folded and
turned, each error meets the whole stream: gate and up lose twice as much, all else less. In 4 bits, groups of 64, perplexity rises from 25.4 to 36.8 behind ``rtn``, which
does not look at that, and falls from 23.2 to 22.1 behind ``gptq``, which does (``studies/results/rotate.md``).
Source: Ashkboos et al. 2024 (QuaRot), arXiv:2404.00456, sections 3 and 4, stage 1a and 1b; the stream: Ashkboos et al. 2024 (SliceGPT), arXiv:2401.15024, theorem 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import log, sqrt
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.probe import output_errors, probe_features
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.quantization.hadamard import rotation
from recompress.methods.quantization.turning import is_even, last_norm, norms_of, turn_heads, turn_stream
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import GROUPED, is_linear, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.shared_layers import shares_of
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOSE = 1e-4
"""The largest difference of an answer, relative to the largest, that other factors of the same products may give."""
CHANCE = 0.3
"""A kurtosis of a few thousand numbers lies so near to its expectation."""
WORSE = 0.5
"""Of the error of rounding, that it may rise by: a rotation of normal numbers gives others like them, and on SmolLM2-135M, where GPTQ gains, it rises by 0.23."""
PROBE = FewBits(bits=4)
"""What the gain is claimed of: rounding to the nearest, one scale for each output."""
STORED = "rotate turns matrices, and some are stored as two factors or stand in several places then; rotate first"
FILLS = "a rotation mixes zeros with what is not zero, so that the sparsity would be lost; rotate first"


class Rotate(Settings):
    """What is turned."""

    stream: bool = True
    """Turn the residual stream. An output layer that is tied to the embeddings becomes one of its own, which costs as many bytes as they have."""
    heads: bool = True
    """Turn the values of each attention head."""


def check(config: Rotate) -> None:
    """Raises ``InputError`` where there is nothing to turn."""
    if not (config.stream or config.heads):
        raise InputError("rotate is told to turn nothing, neither the stream nor the heads; set one of them to true, or leave the step out")


def refuse(network: PreTrainedModel) -> None:
    """Raises ``InputError`` for layers and embeddings that cannot be turned one by one."""
    layers = layers_of(network)
    parts = [part for layer in layers for part in (layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out)]
    plain = all(map(is_linear, parts)) and type(network.get_input_embeddings()) is nn.Embedding
    if not plain or shares_of(network) != tuple(range(len(layers))):
        raise InputError("rotate turns matrices, and here some are stored as two factors or stand in several places; put it before the step that did this")


def along(network: PreTrainedModel, config: Rotate) -> Iterator[Float[Tensor, "rows turned"]]:
    """The matrices of the layers with each direction that is turned as their rows."""
    for layer in layers_of(network):
        if config.stream:
            yield from (weight_of(linear) for linear in (layer.query, layer.key, layer.value, *layer.neurons_in))
            yield from (weight_of(linear).T for linear in (layer.out, layer.neurons_out))
        if config.heads:
            yield weight_of(layer.value).T.reshape(-1, layer.head_size)
            yield weight_of(layer.out).reshape(-1, layer.head_size)


def kurtosis(rows: Float[Tensor, "rows columns"]) -> float:
    """The mean over rows of n sum w^4 / (sum w^2)^2: 1 where all numbers are of one size, 3 of normal ones, n where one number is all there is."""
    squares = rows.double().square()
    return float((rows.shape[1] * squares.square().sum(1) / squares.sum(1).square().clamp_min(1e-300)).mean())


def peak(rows: Float[Tensor, "rows columns"]) -> float:
    """The mean over rows of max |w| / rms w, as a share of sqrt(2 ln 2n), which it does not exceed on average where signs were drawn at random."""
    squares = rows.double().square()
    return float((squares.amax(1) / squares.mean(1).clamp_min(1e-300)).sqrt().mean()) / sqrt(2 * log(2 * rows.shape[1]))


def rounding_error(checkpoint: Checkpoint, inputs: Inputs) -> float:
    """The mean relative squared error of the layers' outputs on the probe, were each weight put on the nearest of its 16 steps."""
    return output_errors(checkpoint, checkpoint, inputs, lambda _, weight: unpacked_matrix(rounded(weight, PROBE))).simpler


def largest_difference(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> float:
    """Of an answer on the probe, relative to the largest; where keys and values are kept in few bits, with them as they are, since other values are rounded otherwise."""
    features = probe_features(before, inputs)
    was_said, is_said = (runtime_of(replace(checkpoint, info=replace(checkpoint.info, cache=None))).logits(features) for checkpoint in (before, after))
    pairs = zip(was_said, is_said, strict=True)
    return max(float(abs(was - now).max(initial=0) / max(1.0, abs(was).max(initial=0))) for was, now in pairs)


def prove(before: Checkpoint, after: Checkpoint, config: Rotate, inputs: Inputs) -> list[Claim]:
    """The same answers, no scale left in a norm, weights that are spread as normal numbers are, and at 4 bits an error that is not far above that before."""
    network = after.torch_network
    turned = list(along(network, config))
    was, now = (rounding_error(checkpoint, inputs) for checkpoint in (before, after))
    norms = [norm for layer in layers_of(network) for norm in norms_of(layer)]
    claims = [
        Claim("largest difference of an answer, relative to the largest", 0, largest_difference(before, after, inputs), CLOSE),
        Claim("kurtosis of the weights along what was turned, that of normal numbers at most", 3, sum(map(kurtosis, turned)) / len(turned), CHANCE, "at most"),
        Claim("largest weight along it, in what random signs leave", 1, sum(map(peak, turned)) / len(turned), bound="at most"),
        Claim("error of the layers' outputs with rtn at 4 bits, not far above that before", was, now, WORSE * was, "at most"),
    ]
    if config.stream:
        claims.append(Claim("norms with one scale for all channels", len(norms) + 1, sum(map(is_even, [*norms, last_norm(network)]))))
    return claims


@method(
    "rotate",
    Rotate,
    family="quantization",
    prove=prove,
    check=check,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=GROUPED,
    source="Ashkboos et al. 2024, arXiv:2404.00456, sections 3 and 4; Ashkboos et al. 2024, arXiv:2401.15024, theorem 1",
    shrinks="nothing: it prepares for few bits; tied embeddings become two matrices",
    speeds_up="nothing",
    not_after={
        **dict.fromkeys(("magnitude", "wanda", "sparsegpt", "gradual", "movement", "platon", "dynamic_sparse"), FILLS),
        **dict.fromkeys(("svd", "fisher_svd", "activation_svd", "factorize_embeddings", "share_layers"), STORED),
    },
    not_before={"tie_embeddings": "the scale of the last norm is in the output layer now, which can be tied to the embeddings no more; tie first"},
)
def rotate(checkpoint: Checkpoint, config: Rotate, inputs: Inputs) -> Checkpoint:
    """Turn the residual stream and the values of each head, so that weights have no outliers; changes no answer, prepares for few bits."""
    network = checkpoint.torch_network
    refuse(network)
    draw = torch.Generator().manual_seed(inputs.seed)
    if config.stream:
        turn_stream(network, rotation(int(network.config.hidden_size), draw))
    if config.heads:
        for layer in layers_of(network):
            turn_heads(layer, rotation(layer.head_size, draw))
    return checkpoint
