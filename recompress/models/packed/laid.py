"""Even steps multiplied as codes: the columns of a matrix as the rows of a table, of which torch sums some, each times a number (its embedding bags of 4- and 8-bit rows).

    y[n, o] = sum_g scale[o, g] * bag[n, g, o]
    bag[n, g, o] = sum_{i in g} x[n, i] * (code[o, i] - middle)  -  (zero[o, g] - middle) * sum_{i in g} x[n, i]             middle = 2^(bits - 1)

A bag is one sum over the rows of a group's columns and one row more, that of its zeros, which is left out where all zeros are in the middle. ``FEW`` tokens are
multiplied so, and no weight ever stands in memory as a float; of more, each row is turned into floats once, as a bag of its own, part by part.

Inputs, sums and scales are 32-bit floats all along. torch has other products of codes (2.13, CPU): ``_weight_int4pack_mm_for_cpu`` is fast for inputs of 16 bits alone,
where answers come within 3e-3 (here 2e-7, as with floats), and takes 25 times the floats' time for 32; ``_weight_int8pack_mm`` 10 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Float16, Int32, UInt8
from torch import Tensor
from torch.nn.functional import pad

from recompress.models.packed.bits import unpack
from recompress.models.packed.scales import lowered

FEW = {True: 16, False: 48}
"""So many tokens are multiplied one by one, of nibbles and of bytes. From about as many on, floats that are made once for all are faster."""
BLOCK = 1 << 20
"""Numbers of a block: the sums of its bags stay in the processor's caches."""
PART = 1 << 19
"""Numbers of a block that are floats at the same time, as far as caches next to the processor reach."""

STRIP = 64
"""Outputs that are laid out at once, so that this takes hardly any memory."""


class Laid(NamedTuple):
    """A matrix ``[outputs, columns]`` in blocks of outputs."""

    blocks: tuple[UInt8[Tensor, "lines bytes"], ...]
    """For each group the codes of its columns, then its zeros where there are any; behind each line the two numbers that torch turns codes into floats with."""
    scales: tuple[Float16[Tensor, "groups width"], ...]
    outputs: int
    size: int
    """Columns of a group."""
    nibbles: bool
    """Whether two codes share a byte."""
    zeros: bool
    columns: Float[Tensor, " columns"] | None
    lift: int


def can_lay(stored: Mapping[str, Tensor], columns: int) -> bool:
    """Whether stored tensors mean even steps, in memory that torch sums rows of."""
    return "scales" in stored and not stored.keys() & {"levels", "codebooks", "places"} and stored["codes"].device.type == "cpu" and columns > 0 and sums_rows()


def lay(stored: Mapping[str, Tensor], columns: int, bits: int, lift: int) -> Laid:
    """Codes of ``steps`` as bags take them, in about as many bytes: 4 bits each, or 8 where they have more."""
    outputs, groups = stored["scales"].shape
    zeros, nibbles = stored.get("zeros"), bits <= 4
    width = max(2, BLOCK // columns // 2 * 2)
    blocks, scales = [], []
    for start in range(0, outputs, width):
        stop = min(start + width, outputs)
        block = _empty(columns + (groups if zeros is not None else 0), (stop - start + 1) // 2 * 2, -float(1 << (bits - 1)), nibbles=nibbles)
        for first in range(start, stop, STRIP):
            rows = slice(first, min(first + STRIP, stop))
            codes = unpack(stored["codes"][rows], bits, columns).view(-1, groups, columns // groups)
            lines = codes if zeros is None else torch.cat([codes, zeros[rows, :, None]], 2)
            _put(block, lines.flatten(1).T, first - start, nibbles=nibbles)
        blocks.append(block)
        scales.append(pad(stored["scales"][start:stop], (0, 0, 0, (stop - start) % 2)).T.contiguous())
    return Laid(
        tuple(blocks), tuple(scales), outputs, columns // groups, nibbles, zeros is not None, stored["columns"].float() if "columns" in stored else None, lift
    )


def product(laid: Laid, given: Float[Tensor, "tokens columns"]) -> Float[Tensor, "tokens outputs"]:
    """``given`` times the matrix; no gradient flows through it."""
    given = given if laid.columns is None else given * laid.columns
    lines = _lines_of(laid, given) if len(given) <= FEW[laid.nibbles] else None
    outputs = given.new_empty((len(given), sum(scales.shape[1] for scales in laid.scales)))
    start = 0
    for block, stored in zip(laid.blocks, laid.scales, strict=True):
        scales = lowered(stored, laid.lift)
        part = outputs[:, start : (start := start + scales.shape[1])]
        if lines is not None:
            torch.sum(_bags(block, lines, len(scales), nibbles=laid.nibbles).mul_(scales), 1, out=part)
        else:
            part.zero_()
            for columns in _parts(laid, scales):
                part.addmm_(given[:, columns], _floats(laid, block, scales, columns))
    return outputs[:, : laid.outputs]


def matrix_of(laid: Laid) -> Float[Tensor, "outputs columns"]:
    """The weights as floats."""
    blocks = []
    for block, stored in zip(laid.blocks, laid.scales, strict=True):
        scales = lowered(stored, laid.lift)
        blocks.append(torch.cat([_floats(laid, block, scales, columns) for columns in _parts(laid, scales)]).T)
    matrix = torch.cat(blocks)[: laid.outputs]
    return matrix if laid.columns is None else matrix * laid.columns


@cache
def sums_rows() -> bool:
    """Whether torch sums rows of 4 and of 8 bits here, and rightly: asked once, of sums that floats hold exactly."""
    weights = torch.tensor([3.0, -1.0, 2.0])
    codes = torch.tensor([[0, 15, 7, 1], [15, 8, 0, 2], [4, 9, 15, 0]], dtype=torch.uint8)
    sums = []
    try:
        for nibbles in (True, False):
            block = _empty(3, 4, -8.0, nibbles=nibbles)
            _put(block, codes, 0, nibbles=nibbles)
            sums.append(_bags(block, weights[None], 1, nibbles=nibbles).flatten())
    except (RuntimeError, AttributeError):  # torch was built without them
        return False
    return all(bag.equal(weights @ (codes.float() - 8)) for bag in sums)


def _empty(lines: int, width: int, least: float, *, nibbles: bool) -> UInt8[Tensor, "lines bytes"]:
    """A block whose codes are all 0, and behind each line 1 and ``least``: what torch multiplies codes with, and adds."""
    rest = torch.tensor([1.0, least], dtype=torch.float16 if nibbles else torch.float32).view(torch.uint8)
    block = torch.zeros((lines, (width // 2 if nibbles else width) + len(rest)), dtype=torch.uint8)
    block[:, -len(rest) :] = rest
    return block


def _put(block: UInt8[Tensor, "lines bytes"], codes: UInt8[Tensor, "lines part"], first: int, *, nibbles: bool) -> None:
    """Codes of some outputs into a block, from output ``first`` on, which is even."""
    if nibbles:
        codes = pad(codes, (0, codes.shape[1] % 2))
        codes, first = codes[:, 0::2] | (codes[:, 1::2] << 4), first // 2
    block[:, first : first + codes.shape[1]] = codes


def _lines_of(laid: Laid, given: Float[Tensor, "tokens columns"]) -> Float[Tensor, "tokens lines"]:
    """What each line is multiplied with: an input, or less all inputs of its group."""
    if not laid.zeros:
        return given
    groups = given.reshape(len(given), given.shape[1] // laid.size, laid.size)
    return torch.cat([groups, -groups.sum(2, keepdim=True)], 2).flatten(1)


def _bags(block: UInt8[Tensor, "lines bytes"], lines: Float[Tensor, "tokens lines"], groups: int, *, nibbles: bool) -> Float[Tensor, "tokens groups width"]:
    """The sums of all groups."""
    tokens, count = lines.shape
    indices = torch.arange(count, dtype=torch.int32).repeat(tokens)
    begins = torch.arange(0, tokens * count, count // groups, dtype=torch.int32)
    sums: Tensor = _operator(nibbles=nibbles)(block, indices, begins, False, 0, False, lines.flatten())
    return sums.view(tokens, groups, sums.shape[1])


def _parts(laid: Laid, scales: Float[Tensor, "groups width"]) -> Iterator[slice]:
    """Columns of a block, some groups or a piece of one at a time."""
    size, most = laid.size, max(1, PART // scales.shape[1])
    step = most // size * size or most
    for start in range(0, size * len(scales), max(step, size)):
        stop = min(start + max(step, size), size * len(scales))
        yield from (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def _floats(laid: Laid, block: UInt8[Tensor, "lines bytes"], scales: Float[Tensor, "groups width"], columns: slice) -> Float[Tensor, "part width"]:
    """Weights of a block: each line is the bag of its own that its codes stand for. Codes and zeros times scales, and what lies between, are floats exactly."""
    groups = slice(columns.start // laid.size, -(-columns.stop // laid.size))
    scales = scales[groups, None]
    lines = torch.arange(columns.start, columns.stop, dtype=torch.int32)
    floats = _each(block, lines + lines // laid.size if laid.zeros else lines, nibbles=laid.nibbles)
    grouped = floats.view(len(scales), -1, floats.shape[1])
    if laid.zeros:
        ends = torch.arange(groups.start, groups.stop, dtype=torch.int32) * (laid.size + 1) + laid.size
        torch.addcmul(_each(block, ends, nibbles=laid.nibbles)[:, None] * -scales, grouped, scales, out=grouped)
    else:
        grouped *= scales
    return floats


def _each(block: UInt8[Tensor, "lines bytes"], lines: Int32[Tensor, " part"], *, nibbles: bool) -> Float[Tensor, "part width"]:
    """Some lines, less the middle of all codes."""
    floats: Tensor = _operator(nibbles=nibbles)(block, lines, torch.arange(len(lines), dtype=torch.int32), False, 0, False)
    return floats


def _operator(*, nibbles: bool) -> torch._ops.OpOverloadPacket:
    bags = torch.ops.quantized
    return bags.embedding_bag_4bit_rowwise_offsets if nibbles else bags.embedding_bag_byte_rowwise_offsets
