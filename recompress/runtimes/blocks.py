"""Packed matrices in the blocks that ONNX Runtime multiplies (``MatMulNBits``) and looks up in (``GatherBlockQuantized``), code for code.

    W[o, i] = scale[o, b] * (code[o, i] - zero[o, b])           b = i // block_size;  zero = 2^(bits - 1) where none is stored

Codes have 4 or 8 bits, two of 4 in a byte, the first of them in the lower half; zeros likewise along the blocks of a row. A block has a power of two of
columns, 16 at least. A longer group is cut into blocks with the same scale, and the last block of a row with one scale may be longer than what is left of it.
Codes of 2 and 3 bits stand in 4. Nothing is rounded: scales, of 16 bits in our files, are 32-bit floats here, as the operators want them beside float inputs.
(As 16-bit numbers behind a Cast they would be smaller, and silently wrong in a session that folds no constants: the int8 kernel then never sees them.)

Source: ONNX Runtime's contrib operators, com.microsoft, version 1: MatMulNBits and GatherBlockQuantized.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from recompress.errors import InputError
from recompress.models.packed import Packed, pack, unpack
from recompress.models.packed.scales import lowered

BLOCKS = (16, 32, 64, 128, 256)
"""Columns of a block."""


class Blocks(NamedTuple):
    """A matrix ``[rows, columns]`` as the two operators take it."""

    codes: UInt8[Tensor, "rows blocks bytes"]
    scales: Float[Tensor, "rows blocks"]
    zeros: UInt8[Tensor, "rows zero_bytes"] | None
    inputs: Float[Tensor, " columns"] | None
    """What inputs are multiplied with before the product (AWQ's 1 / s)."""
    bits: int
    block_size: int
    columns: int

    @property
    def padded(self) -> bool:
        """Whether the blocks hold more codes than the row has columns."""
        return self.codes.shape[1] * self.block_size != self.columns

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self if isinstance(tensor, Tensor))


def block_size_for(columns: int, groups: int, bits: int) -> int | None:
    """The largest block that fits a group; with one group to a row, the one that needs the fewest bytes. ``None`` where none fits."""
    if groups > 1:
        return max((size for size in BLOCKS if columns // groups % size == 0), default=None)

    def row_bytes(size: int) -> int:
        return -(-columns // size) * (size * bits // 8 + 4)

    return min(reversed(BLOCKS), key=row_bytes)


def blocks_of(name: str, packed: Packed) -> Blocks:
    """The matrix of ``packed`` in blocks. Raises ``InputError`` for one that has no place in them; ``name`` is what the error calls it."""
    tensors, columns = packed.tensors, packed.columns_count
    for other, what in (("levels", "levels of a codebook"), ("codebooks", "codes of several numbers"), ("places", "outliers in 16 bits")):
        if other in tensors:
            raise InputError(
                f"{name} holds {what}, and ONNX Runtime multiplies even steps only; pack it with rtn, gptq, awq, signround, qat or mixed_precision"
            )
    groups = tensors["scales"].shape[1]
    bits = 4 if packed.bits <= 4 else 8
    size = block_size_for(columns, groups, bits)
    if size is None:
        raise InputError(f"{name} has groups of {columns // groups} columns, and ONNX Runtime multiplies blocks of 16, 32, 64 …; choose such a group_size")
    codes = unpack(tensors["codes"], packed.bits, columns)
    zeros = tensors.get("zeros")
    if zeros is None:
        codes = codes + ((1 << (bits - 1)) - (1 << (packed.bits - 1)))  # so that a narrower code means the same beside the zero that nobody stores
    count = -(-columns // size)
    repeats = count // groups
    fill = torch.full((len(codes), 1), 1 << (bits - 1), dtype=torch.uint8) if zeros is None else zeros[:, -1:]
    codes = torch.cat([codes, fill.expand(-1, count * size - columns)], dim=1)
    return Blocks(
        codes=pack(codes, bits).view(len(codes), count, size * bits // 8),
        scales=lowered(tensors["scales"], packed.lift).repeat_interleave(repeats, dim=1),
        zeros=None if zeros is None else pack(zeros.repeat_interleave(repeats, dim=1), bits),
        inputs=tensors["columns"].float() if "columns" in tensors else None,
        bits=bits,
        block_size=size,
        columns=columns,
    )
