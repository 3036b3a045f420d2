"""Even steps: what the methods share that round weights to ``bits`` bits, each group of columns of a row with a scale of its own.

    symmetric:   scale = 2 max|W| / (2^bits - 1)                  zero = 2^(bits - 1)
    else:        scale = (max W - min W) / (2^bits - 1)           zero = round(-min W / scale)      with max W >= 0 >= min W
    code = clamp(round(W / scale) + zero, 0, 2^bits - 1)          W ~ scale * (code - zero)

Scales are kept in 16 bits (``recompress.models.packed.scales``), rounded up so that no weight falls off the grid, and codes are those of the scales that are
kept. Zero is always on the grid. With ``scales: mse`` each group has, of these steps and of ``FACTORS`` times as long ones, those whose values lie nearest to its
weights; symmetric ones are then as long as the largest weight asks, whose code is 0, and may be negative:

    symmetric:   scale = f W[i] / -2^(bits - 1), where |W[i]| is the largest
    else:        scale = f (max W - min W) / (2^bits - 1)

Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and section 3. Searched: Choukroun et al. 2019, arXiv:1902.06822, section 3.1 (the scale of least squared error);
the sign: llama.cpp, ``ggml-quants.c`` (Q4_0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Integer, UInt8
from pydantic import Field, model_serializer
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.registry import OF_LANGUAGE
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.factored import token_table
from recompress.models.gguf.tensors import is_tied
from recompress.models.packed import PackedEmbedding, PackedLinear, Quantized, packed_embedding, packed_linear, place, tie_packed
from recompress.models.packed.scales import LARGEST as LARGEST
from recompress.models.packed.scales import SMALLEST as SMALLEST
from recompress.models.packed.scales import held_above, held_near
from recompress.settings.base import Settings, as_before

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 1 << 16
"""Weights that are rounded at once."""
FACTORS = tuple(0.02 * i for i in range(25, 54))
"""Of the range, 0.5 to 1.06: shorter steps cut off the largest weights, and round all others finer."""


Bits = Literal[2, 3, 4, 8]


class FewBits(Settings):
    """How weights are stored."""

    bits: Bits = 4
    """Bits of a weight in the linear layers of the layers."""
    group_size: Annotated[int, Field(ge=8)] | None = None
    """Columns that share a scale (often 64 or 128); a whole row when left out. It must divide the width of every matrix."""
    symmetric: bool = False
    """Steps that lie evenly around zero, so that no zero points need be stored; costs quality where weights do not lie evenly."""
    embeddings: bool | Bits = False
    """Store the token embeddings in few bits too, each number on its nearest step: ``true`` in as many as the layers, a number in so many; an output layer that is tied
    to them follows."""
    output: bool | Bits = False
    """The same for the output layer of a decoder where it is not tied to the embeddings."""
    scales: Literal["minmax", "mse"] = "minmax"
    """Steps from the largest and smallest weight of each group, or those of a few dozen that lose least of its squares: nearer at the same bytes."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("scales", "output"))

    def of(self, asked: bool | Bits) -> FewBits:
        """The same settings for a matrix outside of the layers, for which so many bits are ``asked``."""
        return self if asked is True else self.model_copy(update={"bits": asked})


class Grid(NamedTuple):
    """Steps of each group of a row; scales are numbers of 11 binary digits."""

    scales: Float[Tensor, "out groups"]
    zeros: Float[Tensor, "out groups"]


def grid_of(weight: Float[Tensor, "out in"], bits: int, group_size: int | None, *, symmetric: bool, scales: str = "minmax") -> Grid:
    """The steps of a matrix."""
    groups = weight.reshape(len(weight), -1, group_size or weight.shape[1])
    whole = _of_range(groups, bits, symmetric=symmetric)
    if scales == "minmax":
        return whole
    step = max(1, CHUNK // weight.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(weight), step)]
    found = [_nearest_of(groups[part], Grid(whole.scales[part], whole.zeros[part]), bits, symmetric=symmetric) for part in parts]
    return Grid(torch.cat([grid.scales for grid in found]), torch.cat([grid.zeros for grid in found]))


def _nearest_of(groups: Float[Tensor, "out groups size"], whole: Grid, bits: int, *, symmetric: bool) -> Grid:
    """For each group the steps of ``whole`` or, where their values lie nearer to the weights, others."""
    best, least = whole, _squares_lost(groups, whole, bits)
    for grid in _others(groups, bits, symmetric=symmetric):
        lost = _squares_lost(groups, grid, bits)
        nearer = lost < least
        least = torch.where(nearer, lost, least)
        best = Grid(torch.where(nearer, grid.scales, best.scales), torch.where(nearer, grid.zeros, best.zeros))
    return best


def _others(groups: Float[Tensor, "out groups size"], bits: int, *, symmetric: bool) -> Iterator[Grid]:
    top, middle = (1 << bits) - 1, float(1 << (bits - 1))
    if symmetric:
        largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[:, :, 0]
        sign = torch.where(largest > 0, -1.0, 1.0)
        for factor in FACTORS:
            scales = sign * held_near(factor * largest.abs() / middle)
            yield Grid(scales, torch.full_like(scales, middle))
        return
    low, high = groups.amin(-1).clamp_max(0), groups.amax(-1).clamp_min(0)
    for factor in FACTORS:
        scales = held_near(factor * (high - low) / top)
        yield Grid(scales, (-low * factor / scales).round().clamp(0, top))


def _squares_lost(groups: Float[Tensor, "out groups size"], grid: Grid, bits: int) -> Float[Tensor, "out groups"]:
    weight = groups.flatten(1)
    return (values_of(_codes(weight, grid, bits), grid) - weight).square().reshape(groups.shape).sum(-1)


def _of_range(groups: Float[Tensor, "out groups size"], bits: int, *, symmetric: bool) -> Grid:
    """Steps over the whole range of each group."""
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
    grid = grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
    return quantized(codes_on(weight, grid, config.bits), grid, config)


def quantized(codes: UInt8[Tensor, "out in"], grid: Grid, config: FewBits, columns: Float[Tensor, " in"] | None = None) -> Quantized:
    return Quantized(codes, config.bits, grid.scales, None if config.symmetric else grid.zeros, columns=columns)


def outside(network: PreTrainedModel, config: FewBits) -> list[tuple[str, Any, FewBits]]:
    """The matrices beside the layers that the settings ask for, with their names in words and the settings in their own bits: the token embeddings, the output layer.
    Raises ``InputError`` for an output layer that does not exist or is tied."""
    found: list[tuple[str, Any, FewBits]] = []
    if config.embeddings:
        found.append(("the embeddings", token_table(network), config.of(config.embeddings)))
    if config.output:
        found.append(("the output layer", _untied_output(network, config), config.of(config.output)))
    return found


def _untied_output(network: PreTrainedModel, config: FewBits) -> Any:
    asked = f"output is {str(config.output).lower()}, and this {network.config.model_type}"
    if network.get_output_embeddings() is None:
        raise InputError(f"{asked} has no output layer over its vocabulary; leave output out")
    if is_tied(network):
        raise InputError(f"{asked} has an output layer that is tied to its embeddings; set embeddings, and leave output out")
    return network.get_output_embeddings()


def check_output(config: FewBits, benchmark: str) -> None:
    """Raises ``InputError`` where an output layer is to be packed of models that have none."""
    if config.output and benchmark not in OF_LANGUAGE:
        raise InputError(f"output is {str(config.output).lower()}, and models for {benchmark} have no output layer over a vocabulary; leave output out")


def pack_outside(network: PreTrainedModel, config: FewBits) -> None:
    """Token embeddings and output layer, where the settings ask for them."""
    for _, module, its in outside(network, config):
        place_outside(network, module, rounded(module.weight.detach(), its))


def place_outside(network: PreTrainedModel, module: Any, matrix: Quantized) -> PackedEmbedding | PackedLinear:
    """Put a matrix where the token embeddings or the output layer were; gives what stands there now."""
    if module is token_table(network):
        embedding = packed_embedding(matrix)
        replace_embeddings(network, embedding)
        return embedding
    output = packed_linear(matrix, module)
    place(network, next(name for name, other in network.named_modules() if other is module), output)
    return output


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
    matrices += [(name, module.weight.shape[1], module.weight) for name, module, _ in outside(network, config)]
    for name, width, weight in matrices:
        if config.group_size is not None and width % config.group_size:
            raise InputError(f"group_size {config.group_size} does not divide the {width} columns of {name}; choose one that divides all, or leave it out")
        if float(weight.detach().abs().max()) > LARGEST:
            raise InputError(f"{name} holds weights above {LARGEST:g}, which the 16-bit scales of packed weights cannot reach")
