"""Even steps: what the methods share that round weights to ``bits`` bits, each group of columns of a row with a scale of its own.

    symmetric:   scale = 2 max|W| / (2^bits - 1)                  zero = 2^(bits - 1)
    else:        scale = (max W - min W) / (2^bits - 1)           zero = round(-min W / scale)      with max W >= 0 >= min W
    code = clamp(round(W / scale) + zero, 0, 2^bits - 1)          W ~ scale * (code - zero)

Scales are kept in 16 bits, rounded up so that no weight falls off the grid, and codes are those of the scales that are kept. Zero is always on the grid.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float, Integer, UInt8
from pydantic import Field
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.registry import Claim
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.files import distinct_tensors
from recompress.models.packed import PackedEmbedding, PackedLinear, Quantized, packed_embedding, place, tie_packed
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORM_BYTES = 8
SMALLEST = 2.0**-14
"""The smallest 16-bit number of full precision; also the scale of a group of zeros."""
LARGEST = 65504.0
CHUNK = 1 << 16
"""Weights that are rounded at once."""


class FewBits(Settings):
    """How weights are stored."""

    bits: Literal[2, 3, 4, 8] = 4
    """Bits of a weight in the linear layers of the layers."""
    group_size: Annotated[int, Field(ge=8)] | None = None
    """Columns that share a scale (often 64 or 128); a whole row when left out. It must divide the width of every matrix."""
    symmetric: bool = False
    """Steps that lie evenly around zero, so that no zero points need be stored; costs quality where weights do not lie evenly."""
    embeddings: bool = False
    """Store the token embeddings in as many bits too, rounded to the nearest step; an output layer that is tied to them follows."""


class Grid(NamedTuple):
    """Steps of each group of a row; scales are numbers that 16 bits can hold."""

    scales: Float[Tensor, "out groups"]
    zeros: Float[Tensor, "out groups"]


def grid_of(weight: Float[Tensor, "out in"], bits: int, group_size: int | None, *, symmetric: bool) -> Grid:
    """The steps of a matrix."""
    groups = weight.reshape(len(weight), -1, group_size or weight.shape[1])
    top = (1 << bits) - 1
    if symmetric:
        scales = held_above(2 * groups.abs().amax(-1) / top)
        return Grid(scales, torch.full_like(scales, float(1 << (bits - 1))))
    low, high = groups.amin(-1).clamp_max(0), groups.amax(-1).clamp_min(0)
    scales = held_above((high - low) / top)
    return Grid(scales, (-low / scales).round().clamp(0, top))


def codes_on(weight: Float[Tensor, "out in"], grid: Grid, bits: int) -> UInt8[Tensor, "out in"]:
    """The nearest step of each weight, in 8 bits each."""
    step = max(1, CHUNK // weight.shape[1])
    parts = (slice(start, start + step) for start in range(0, len(weight), step))
    return torch.cat([_codes(weight[part], Grid(grid.scales[part], grid.zeros[part]), bits) for part in parts])


def _codes(weight: Float[Tensor, "out in"], grid: Grid, bits: int) -> UInt8[Tensor, "out in"]:
    groups = weight.reshape(len(weight), grid.scales.shape[1], -1)
    codes = (groups / grid.scales[:, :, None]).round_().add_(grid.zeros[:, :, None])
    return codes.clamp_(0, (1 << bits) - 1).to(torch.uint8).flatten(1)


def values_of(codes: Integer[Tensor, "out in"], grid: Grid) -> Float[Tensor, "out in"]:
    """What codes stand for."""
    groups = codes.reshape(len(codes), grid.scales.shape[1], -1).to(grid.scales.dtype)
    return ((groups - grid.zeros[:, :, None]) * grid.scales[:, :, None]).flatten(1)


def rounded(weight: Float[Tensor, "out in"], config: FewBits) -> Quantized:
    """Each weight on its nearest step."""
    grid = grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric)
    return quantized(codes_on(weight, grid, config.bits), grid, config)


def quantized(codes: UInt8[Tensor, "out in"], grid: Grid, config: FewBits, columns: Float[Tensor, " in"] | None = None) -> Quantized:
    return Quantized(codes, config.bits, grid.scales, None if config.symmetric else grid.zeros, columns=columns)


def pack_embeddings(network: PreTrainedModel, config: FewBits) -> None:
    """The token embeddings, where the settings ask for it."""
    if not config.embeddings:
        return
    replace_embeddings(network, packed_embedding(rounded(token_table(network).weight.detach(), config)))


def replace_embeddings(network: PreTrainedModel, packed: PackedEmbedding) -> None:
    """Put packed token embeddings where the others were, and under an output layer that is tied to them."""
    embedding = token_table(network)
    name = next(name for name, module in network.named_modules() if module is embedding)
    tied = getattr(network.get_output_embeddings(), "weight", None) is embedding.weight
    place(network, name, packed)
    if tied:
        tie_packed(network)


def refuse(network: PreTrainedModel, config: FewBits) -> None:
    """Raises ``InputError`` for groups that do not divide a matrix, weights that 16-bit scales cannot hold, and tied layers that would come apart."""
    matrices = [(name, shape_of(linear)[1], linear.weight) for name, linear in encoder_linears(network)]
    if config.embeddings:
        weight = token_table(network).weight
        matrices.append(("the embeddings", weight.shape[1], weight))
    for name, width, weight in matrices:
        if config.group_size is not None and width % config.group_size:
            raise InputError(f"group_size {config.group_size} does not divide the {width} columns of {name}; choose one that divides all, or leave it out")
        if float(weight.detach().abs().max()) > LARGEST:
            raise InputError(f"{name} holds weights above {LARGEST:g}, which the 16-bit scales of packed weights cannot reach")


def prove_packed(before: Checkpoint, after: Checkpoint, config: FewBits, extra: Callable[[int, int], int] | None = None) -> list[Claim]:
    """All linear layers of the layers packed, in so many bits, and the bytes that follow. ``extra`` gives the bytes of what else a matrix stores."""
    old, new = before.torch_network, after.torch_network
    pairs = [(shape_of(linear), new.get_submodule(name)) for name, linear in encoder_linears(old)]
    packed = [module for _, module in pairs if isinstance(module, PackedLinear)]
    numbers = sum(rows * columns for (rows, columns), _ in pairs)
    expected = tensor_bytes(old)
    for (rows, columns), _ in pairs:
        expected += matrix_bytes(rows, columns, config) - 4 * rows * columns + (extra(rows, columns) if extra else 0)
    expected += bytes_of_embeddings(old, config)
    return [
        Claim("linear layers packed", len(pairs), len(packed)),
        Claim("embeddings packed", float(config.embeddings), float(isinstance(token_table(new), PackedEmbedding))),
        Claim("bits of a weight", 8 * sum(r * code_bytes(c, config.bits) for (r, c), _ in pairs) / numbers, 8 * sum(m.codes.numel() for m in packed) / numbers),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
    ]


def zeros_claim(before: Checkpoint, after: Checkpoint) -> Claim:
    """Every weight that was zero, because it was pruned, still is."""
    pairs = [(weight_of(linear) == 0, after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    zeros_left = sum(int((module.weight[zero] == 0).sum()) for zero, module in pairs if isinstance(module, PackedLinear))
    return Claim("zeros that stayed zero", sum(int(zero.sum()) for zero, _ in pairs), zeros_left)


def bytes_of_embeddings(network: PreTrainedModel, config: FewBits) -> int:
    """What packing the token embeddings adds to the bytes of all tensors: a negative number, or 0 where the settings do not ask for it."""
    if not config.embeddings:
        return 0
    rows, columns = map(int, token_table(network).weight.shape)
    return matrix_bytes(rows, columns, config) - 4 * rows * columns


def code_bytes(columns: int, bits: int) -> int:
    return -(-columns * bits // 8)


def matrix_bytes(rows: int, columns: int, config: FewBits) -> int:
    """Codes, scales and zeros of one matrix."""
    groups = columns // (config.group_size or columns)
    return rows * (code_bytes(columns, config.bits) + groups * (2 if config.symmetric else 3)) + FORM_BYTES


def tensor_bytes(network: PreTrainedModel) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct_tensors(network).values())


def held_above(scales: Float[Tensor, "out groups"]) -> Float[Tensor, "out groups"]:
    """The next 16-bit number that is not smaller."""
    held = scales.clamp(SMALLEST, LARGEST).half()
    short = held.to(scales.dtype) < scales
    return (held.view(torch.int16) + short.to(torch.int16)).view(torch.float16).clamp_max(LARGEST).to(scales.dtype)
