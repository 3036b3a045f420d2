"""How near codes are to the weights that they stand for. Everything is measured on the matrices before the step and on those that were read back from disk.

rounding      max |W - W'| / step            step: what the range of the group's weights needs, (max W - min W) / (2^bits - 1), or 2 max|W| / (2^bits - 1)
weighted      sum h[i] (W[o, i] - W'[o, i])^2 / sum h[i] W[o, i]^2           h[i] = sum x[:, i]^2 on the probe
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.layerwise.statistics import Kind, Statistics
from recompress.methods.calibration import statistics_of
from recompress.methods.probe import OutputErrors, Simpler, output_errors, probe_features
from recompress.methods.quantization.grid import FewBits, outside, rounded
from recompress.methods.registry import Claim, Inputs
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedLinear
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.packed.scales import REACH
from recompress.models.surgery import weight_of
from recompress.runtimes.batches import Feature

GAIN = 0.98
"""A method that claims less than another must show this share of its error at most: as much is a sign that it did the same."""
SEARCHED = 0.999
"""The share of the squared error that searched scales may leave: in 8 bits, or of 8 weights, there is little to be found."""
HALF_STEP, FLOATS = 0.5, 1e-3
"""The farthest that the nearest step can be; scales are kept in 16 bits and computed with in 32."""
ROWS = 0.1
"""Rows of a table may lose so much more than with even steps, as a share of their squares: some have a few numbers that levels and books reach late."""


def pairs_of(before: Checkpoint, after: Checkpoint) -> list[tuple[str, Float[Tensor, "out in"], PackedLinear]]:
    """Each matrix of the layers that is packed now: its name, what it was, and what it is."""
    modules = ((name, weight_of(linear), after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network))
    return [(name, weight, module) for name, weight, module in modules if isinstance(module, PackedLinear)]


def largest_rounding(weight: Float[Tensor, "out in"], values: Float[Tensor, "out in"], bits: int, group_size: int | None, *, symmetric: bool) -> float:
    """The farthest that a weight lies from what stands for it, in steps of its group."""
    groups = weight.reshape(len(weight), -1, group_size or weight.shape[1])
    gaps = (weight - values).abs().reshape(groups.shape).amax(-1)
    ranges = 2 * groups.abs().amax(-1) if symmetric else groups.amax(-1).clamp_min(0) - groups.amin(-1).clamp_max(0)
    steps = ranges / ((1 << bits) - 1)
    return float((gaps / steps.clamp_min(float(steps.max()) * REACH).clamp_min(1e-37)).max())


def rounding_claim(before: Checkpoint, after: Checkpoint, config: FewBits) -> Claim:
    """No weight further from what it was than half a step of the grid that its group needs, in the bits that it is stored in; where scales were searched, less of
    all squares lost than on that grid."""
    if config.scales == "mse":
        return _nearer_than_the_range(pairs_of(before, after), config)
    group_size, symmetric = config.group_size, config.symmetric
    every = [largest_rounding(weight, module.weight, module.bits, group_size, symmetric=symmetric) for _, weight, module in pairs_of(before, after)]
    return Claim("largest rounding, in steps of what the weights need", HALF_STEP, max(every, default=0.0), FLOATS, "at most")


def _nearer_than_the_range(pairs: Iterable[tuple[str, Float[Tensor, "out in"], Any]], config: FewBits, what: str = "") -> Claim:
    ours = theirs = 0.0
    for _, weight, module in pairs:
        usual = unpacked_matrix(rounded(weight, config.model_copy(update={"bits": module.bits, "scales": "minmax"})))
        ours += float((weight - module.weight).double().square().sum())
        theirs += float((weight - usual).double().square().sum())
    return Claim(f"squared error of the weights{what}, below {SEARCHED:.1%} of that with scales: minmax", SEARCHED * theirs, ours, bound="at most")


def table_rounding_claims(before: Checkpoint, after: Checkpoint, config: FewBits) -> list[Claim]:
    """The same of token embeddings and output layer, row by row, where ``config`` asks for them, in their bits."""
    old, new = (outside(checkpoint.torch_network, config) for checkpoint in (before, after))
    return [_table_rounding(what, was.weight.detach(), now, its) for (what, was, its), (_, now, _) in zip(old, new, strict=True)]


def _table_rounding(what: str, was: Float[Tensor, "words width"], now: Any, config: FewBits) -> Claim:
    if config.scales == "mse":
        return _nearer_than_the_range([("", was, now)], config, f" of {what}")
    farthest = largest_rounding(was, now.weight.detach(), config.bits, config.group_size, symmetric=config.symmetric)
    return Claim(f"largest rounding of {what}, in steps of what they need", HALF_STEP, farthest, FLOATS, "at most")


def table_claims(before: Checkpoint, after: Checkpoint, simpler: Simpler, what: str, farthest: float, rows: float = 1.0) -> list[Claim]:
    """The token embeddings stand for what they stood for: on average as near to it as those of the simpler method called ``what``, and no row's squared error
    above ``farthest`` of its squares, or not that of so large a share of the ``rows``. A table whose rows are in another order is as large as the right one, and
    about two of its squares away."""
    was, now = tables_of(before, after)
    squares = was.square().sum(1)
    squares = squares.clamp_min(float(squares.mean()) * REACH).clamp_min(1e-30)
    ours, theirs = ((was - values).square().sum(1) / squares for values in (now, simpler("the embeddings", was)))
    return [
        Claim(f"error of the embeddings, about that of {what}", float(theirs.mean()), float(ours.mean()), ROWS, "at most"),
        Claim("largest error of a row of the embeddings, in its squares", farthest, float(torch.quantile(ours, rows)), bound="at most"),
    ]


def tables_of(before: Checkpoint, after: Checkpoint) -> tuple[Float[Tensor, "words width"], Float[Tensor, "words width"]]:
    """The token embeddings as they were, and as they are."""
    was, now = (token_table(checkpoint.torch_network).weight.detach() for checkpoint in (before, after))
    return was, now


def probe_statistics(before: Checkpoint, after: Checkpoint, features: list[Feature], wanted: Collection[Kind]) -> dict[str, Statistics]:
    """What flows into each linear layer of the layers of the network after the step, padding left out; of layers that share their weights into the first."""
    network = after.torch_network
    modules = {name: network.get_submodule(name) for name, _ in encoder_linears(before.torch_network)}
    return statistics_of(network, modules, features, wanted)


def squares_on_probe(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> dict[str, Float[Tensor, " in"]]:
    """h of each linear layer."""
    features = probe_features(before, inputs)
    return {name: statistics["squares"] for name, statistics in probe_statistics(before, after, features, {"squares"}).items()}


def weighted_errors(before: Checkpoint, after: Checkpoint, importance: Mapping[str, Float[Tensor, " in"]] | None, simpler: Simpler) -> OutputErrors:
    """The mean over matrices of what they lose, and of what those of a simpler method lose; without ``importance`` all weights count alike."""
    ours, theirs = [], []
    for name, weight, module in pairs_of(before, after):
        heavy = torch.ones(weight.shape[1]) if importance is None else importance[name]
        heavy = heavy.to(weight) / heavy.max().clamp_min(1e-30)
        size = float((heavy * weight.square()).sum()) or 1.0
        ours.append(float((heavy * (weight - module.weight).square()).sum()) / size)
        theirs.append(float((heavy * (weight - simpler(name, weight)).square()).sum()) / size)
    return OutputErrors(sum(ours) / max(1, len(ours)), sum(theirs) / max(1, len(theirs)))


def below_rounding(before: Checkpoint, after: Checkpoint, inputs: Inputs, config: FewBits) -> Claim:
    """The claim that the layers' outputs are nearer to what they were than with each weight on its nearest step, in the bits that each layer is stored in."""
    bits = {name: module.bits for name, _, module in pairs_of(before, after)}

    def nearest(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        return unpacked_matrix(rounded(weight, config.model_copy(update={"bits": bits[name]}))) if name in bits else weight

    errors = output_errors(before, after, inputs, nearest)
    return Claim(f"error of the layers' outputs, below {GAIN:.0%} of that of rtn", GAIN * errors.simpler, errors.method, bound="at most")
