"""Codebook: weights as numbers of a short list of levels that lie where weights lie, not evenly.

    nf4:      W[o, i] ~ max|W_g| * level[code]             level: 16 quantiles of the normal distribution in [-1, 1], zero among them; g: a group of columns
    kmeans:   W[o, i] ~ level[o, code]                     level[o]: the 2^bits means that minimise  sum_i h[i] (W[o, i] - level[o, code[o, i]])^2

with h[i] = sum x[:, i]^2 where calibration is asked for, and 1 where it is not. Means begin at evenly spaced quantiles of the row and follow Lloyd's rounds.
Weights that are zero, because they were pruned, stay so: in such a row one level begins at zero, and the level nearest to zero becomes zero.
Source: Dettmers et al. 2023 (QLoRA), arXiv:2305.14314, eq. 4 and appendix E (nf4); Han et al. 2016, arXiv:1510.00149, section 3 (k-means);
Kim et al. 2023 (SqueezeLLM), arXiv:2306.07629, section 4.1 (weighted k-means, there weighted by gradients).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.quantization.by_layer import PACKED, code_layers, slower
from recompress.methods.quantization.closeness import pairs_of, squares_on_probe, table_claims, tables_of, weighted_errors
from recompress.methods.quantization.grid import FewBits, refuse, replace_embeddings, rounded
from recompress.methods.quantization.levels import by_kmeans, by_nf4
from recompress.methods.quantization.packed_claims import code_bytes, tensor_bytes, zeros_claim
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.packed import PackedEmbedding, PackedLinear, Quantized, packed_embedding
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings

NF4_GAP = 0.1519
"""Half the widest gap between two levels of nf4, -1 and -0.6961928 (appendix E): no weight is further from its level, in units of the group's largest."""
SHORT = 0.05
"""Lloyd's rounds end in the nearest valley, so that levels may lose a little more than even ones where these happen to fit."""
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
        *(_nf4_claims(before, after, config) if config.kind == "nf4" else _kmeans_claims(before, after, config, inputs)),
    ]


def _nf4_claims(before: Checkpoint, after: Checkpoint, config: Codebook) -> Iterator[Claim]:
    """No weight further from what it was than the levels are apart, in the layers and in the token embeddings."""
    matrices = [(weight, module.weight) for _, weight, module in pairs_of(before, after)]
    tables = [tables_of(before, after)] if config.embeddings else []
    for what, pairs in (("largest rounding", matrices), ("largest rounding of the embeddings", tables)):
        if pairs:
            farthest = max(_farthest(was, now, config.group_size) for was, now in pairs)
            yield Claim(f"{what}, in shares of the group's largest weight", NF4_GAP, farthest, 1e-3, "at most")


def _farthest(was: Float[Tensor, "out in"], now: Float[Tensor, "out in"], group_size: int | None) -> float:
    groups = was.reshape(len(was), -1, group_size or was.shape[1])
    gaps = (was - now).abs().reshape(groups.shape).amax(-1)
    return float((gaps / groups.abs().amax(-1).clamp_min(1e-37)).max())


def _kmeans_claims(before: Checkpoint, after: Checkpoint, config: Codebook, inputs: Inputs) -> Iterator[Claim]:
    """Less lost, by the measure that the means minimise, than with as many levels evenly apart; of a row of the embeddings never more than there was, which
    holds for means of its numbers."""

    def even(_: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        return unpacked_matrix(rounded(weight, FewBits(bits=config.bits)))

    errors = weighted_errors(before, after, squares_on_probe(before, after, inputs) if config.weighted else None, even)
    yield Claim("error of the weights, below that of even levels", errors.simpler, errors.method, SHORT * errors.simpler + 1e-6, "at most")
    if config.embeddings:
        yield from table_claims(before, after, even, "even levels", 1 + SHORT)


def _codes(pairs: list[tuple[tuple[int, int], nn.Module]], packed: list[PackedLinear], config: Codebook) -> tuple[list[int], list[int]]:
    """Bytes of codes, asked and found."""
    return [rows * code_bytes(columns, config.bits) for (rows, columns), _ in pairs], [module.codes.numel() for module in packed]


@method(
    "codebook",
    Codebook,
    prove=prove,
    check=check,
    needs=("calibration",),
    **PACKED,
    source="Dettmers et al. 2023, arXiv:2305.14314, eq. 4; Han et al. 2016, arXiv:1510.00149, section 3",
    shrinks="bytes, to about bits / 32 in the layers",
    speeds_up=slower("1.2 (nf4) to 1.8 (levels of each row)"),
)
def quantize_codebook(checkpoint: Checkpoint, config: Codebook, inputs: Inputs) -> Checkpoint:
    """Weights as numbers of a short list of levels that lie where weights lie."""
    network = checkpoint.torch_network
    refuse(network, FewBits(group_size=config.group_size, embeddings=config.embeddings))

    def coding(group: Group, statistics: Statistics) -> Mapping[str, Quantized]:
        importance = statistics["squares"] if config.weighted else torch.ones_like(statistics["squares"])
        return {name: _one(weight_of(linear), importance, config) for name, linear in group.items()}

    examples = config.calibration_examples if config.kind == "kmeans" and config.weighted else 1
    code_layers(checkpoint, inputs, "codebook", config, coding, wanted={"squares"}, examples=examples)
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
