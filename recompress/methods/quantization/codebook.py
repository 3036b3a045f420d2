"""Codebook: weights as numbers of a short list of levels that lie where weights lie, not evenly.

    nf4:      W[o, i] ~ max|W_g| * level[code]             level: 16 quantiles of the normal distribution in [-1, 1], zero among them; g: a group of columns
    kmeans:   W[o, i] ~ level[o, code]                     level[o]: the 2^bits means that minimise  sum_i h[i] (W[o, i] - level[o, code[o, i]])^2

with h[i] = sum x[:, i]^2 where calibration is asked for, and 1 where it is not. Means begin at evenly spaced quantiles of the row and follow Lloyd's rounds.
Weights that are zero, because they were pruned, stay so: in such a row the level nearest to zero becomes zero.
Source: Dettmers et al. 2023 (QLoRA), arXiv:2305.14314, eq. 4 and appendix E (nf4); Han et al. 2016, arXiv:1510.00149, section 3 (k-means);
Kim et al. 2023 (SqueezeLLM), arXiv:2306.07629, section 4.1 (weighted k-means, there weighted by gradients).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.grid import LARGEST, FewBits, code_bytes, held_above, refuse, replace_embeddings, tensor_bytes, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, Quantized, packed_embedding, packed_linear
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings

NF4_OFFSET = 0.9677083
"""The outermost quantile, from the authors' code: the mean of 1 - 1/30 and 1 - 1/32."""

CHUNK = 1 << 18
"""Weights that are sorted into levels at once: rows do not know of each other."""


class Codebook(Settings):
    """Which levels."""

    kind: Literal["nf4", "kmeans"] = "kmeans"
    """Quantiles of the normal distribution, the same for all, or means of each row's own weights."""
    bits: Literal[2, 3, 4] = 4
    """Bits of a weight; nf4 has 4."""
    group_size: Annotated[int, Field(ge=8)] | None = None
    """nf4: columns that share a scale (64 in the paper); a whole row when left out."""
    weighted: bool = True
    """kmeans: let weights with large inputs count for more."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 25
    """kmeans: Lloyd's rounds."""
    embeddings: bool = False
    """Store the token embeddings so too, unweighted; an output layer that is tied to them follows."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at; none for nf4 and where ``weighted`` is false."""


def check(config: Codebook) -> None:
    """Raises ``InputError`` for settings that do not belong to the kind."""
    if config.kind == "nf4" and config.bits != 4:
        raise InputError(f"nf4 has 4 bits, got {config.bits}; choose kind: kmeans for others")
    if config.kind == "kmeans" and config.group_size is not None:
        raise InputError("kmeans has levels for each row and no groups; leave group_size out")


def nf4_levels() -> Float[Tensor, "16"]:
    """Seven levels below zero, zero, and eight above; in 16 bits, as they are stored."""
    normal = NormalDist()
    above = [normal.inv_cdf(NF4_OFFSET + (0.5 - NF4_OFFSET) * i / 8) for i in range(8)]
    below = [-normal.inv_cdf(NF4_OFFSET + (0.5 - NF4_OFFSET) * i / 7) for i in range(7)]
    levels = torch.tensor(sorted([*above, 0.0, *below]), dtype=torch.float64)
    return (levels / levels.max()).half().float()


def by_nf4(weight: Float[Tensor, "out in"], group_size: int | None) -> Quantized:
    """The nearest of the 16 levels, in units of the group's largest weight."""
    levels = nf4_levels().to(weight)
    groups = weight.reshape(len(weight), -1, group_size or weight.shape[1])
    scales = held_above(groups.abs().amax(-1))
    codes = nearest((groups / scales[:, :, None]).flatten(1), levels[None])
    return Quantized(codes, 4, scales, levels=levels[None])


def by_kmeans(weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"], bits: int, rounds: int) -> Quantized:
    """The levels of each row and the nearest of them for each weight. A level that no weight is nearest to stays where it is."""
    count = 1 << bits
    places = (torch.arange(count, device=weight.device, dtype=weight.dtype) + 0.5) / count
    levels = torch.quantile(weight, places, dim=1).T.contiguous()
    heavy = importance.to(weight).expand_as(weight)
    for _ in range(rounds):
        codes = nearest(weight, levels).long()
        mass = torch.zeros_like(levels).scatter_add_(1, codes, heavy)
        total = torch.zeros_like(levels).scatter_add_(1, codes, heavy * weight)
        moved = torch.where(mass > 0, total / mass.clamp_min(1e-30), levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    levels = levels.sort(dim=1).values.clamp(-LARGEST, LARGEST).half().to(weight.dtype)
    pruned = (weight == 0).any(1, keepdim=True)
    middle = levels.abs().argmin(1, keepdim=True)
    levels = levels.scatter(1, middle, levels.gather(1, middle).masked_fill(pruned, 0))
    return Quantized(nearest(weight, levels), bits, torch.ones((len(weight), 1), device=weight.device), levels=levels)


def nearest(weight: Float[Tensor, "out in"], levels: Float[Tensor, "#out codes"]) -> UInt8[Tensor, "out in"]:
    """The number of the nearest level of each weight; of two that are as near, the lower. ``levels`` rise."""
    middles = ((levels[:, 1:] + levels[:, :-1]) / 2).expand(len(weight), -1).contiguous()
    return torch.searchsorted(middles, weight.contiguous()).to(torch.uint8)


def prove(before: Checkpoint, after: Checkpoint, config: Codebook, inputs: Inputs) -> list[Claim]:
    """Packed, in so many bits, with the bytes that codes, scales and levels take."""
    old, new = before.torch_network, after.torch_network
    pairs = [(shape_of(linear), new.get_submodule(name)) for name, linear in encoder_linears(old)]
    packed = [module for _, module in pairs if isinstance(module, PackedLinear)]
    asked_bits, stored_bits = (8 * sum(count) / sum(rows * columns for (rows, columns), _ in pairs) for count in _codes(pairs, packed, config))
    shapes = [shape for shape, _ in pairs] + ([tuple(map(int, token_table(old).weight.shape))] if config.embeddings else [])
    expected = tensor_bytes(old)
    for rows, columns in shapes:
        groups = columns // (config.group_size or columns)
        levels = 1 if config.kind == "nf4" else rows
        expected += rows * code_bytes(columns, config.bits) + 2 * rows * groups + 2 * levels * (1 << config.bits) + 8 - 4 * rows * columns
    return [
        Claim("linear layers packed", len(pairs), len(packed)),
        Claim("embeddings packed", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bits of a weight", asked_bits, stored_bits),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
        zeros_claim(before, after),
    ]


def _codes(pairs: list[tuple[tuple[int, int], nn.Module]], packed: list[PackedLinear], config: Codebook) -> tuple[list[int], list[int]]:
    """Bytes of codes, asked and found."""
    return [rows * code_bytes(columns, config.bits) for (rows, columns), _ in pairs], [module.codes.numel() for module in packed]


@method(
    "codebook",
    Codebook,
    family="quantization",
    prove=prove,
    check=check,
    needs=("calibration",),
    gives="packed",
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Dettmers et al. 2023, arXiv:2305.14314, eq. 4; Han et al. 2016, arXiv:1510.00149, section 3",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up="nothing: weights are unpacked when they are used",
)
def quantize_codebook(checkpoint: Checkpoint, config: Codebook, inputs: Inputs) -> Checkpoint:
    """Weights as numbers of a short list of levels that lie where weights lie."""
    network = checkpoint.torch_network
    refuse(network, FewBits(group_size=config.group_size, embeddings=config.embeddings))

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        importance = statistics["squares"] if config.weighted else torch.ones_like(statistics["squares"])
        return {name: packed_linear(_one(weight_of(linear), importance, config), linear) for name, linear in group.items()}

    features = calibration_features(checkpoint, inputs, config.calibration_examples if config.kind == "kmeans" and config.weighted else 1)
    depends_on = {"method": "codebook", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"squares"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "codebook")
    if config.embeddings:
        table = token_table(network).weight.detach()
        replace_embeddings(network, packed_embedding(_one(table, torch.ones(table.shape[1], device=table.device), config)))
    return checkpoint


def _one(weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"], config: Codebook) -> Quantized:
    if config.kind == "nf4":
        return by_nf4(weight, config.group_size)
    parts = [by_kmeans(rows, importance, config.bits, config.rounds) for rows in torch.split(weight, max(1, CHUNK // weight.shape[1]))]
    levels = torch.cat([part.levels for part in parts if part.levels is not None])
    return Quantized(torch.cat([part.codes for part in parts]), config.bits, torch.cat([part.scales for part in parts]), levels=levels)
