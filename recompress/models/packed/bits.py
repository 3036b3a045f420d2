"""Codes of few bits, one after another, the lowest bit first; each row begins on a whole byte."""

from __future__ import annotations

from functools import cache
from math import gcd

import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from recompress.models.packed.tables import looked_up


def pack(codes: UInt8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, "rows bytes"]:
    """Codes below ``2 ** bits`` into ``ceil(columns * bits / 8)`` bytes for each row."""
    rows, columns = codes.shape
    packed = torch.zeros((rows, row_bytes(columns, bits)), dtype=torch.uint8, device=codes.device)
    for bit in range(bits):
        places = torch.arange(columns, device=codes.device) * bits + bit
        values = ((codes >> bit) & 1) << (places % 8).to(torch.uint8)
        packed.index_add_(1, places // 8, values)  # no two of these meet in one bit, so that adding is joining
    return packed


def unpack(packed: UInt8[Tensor, "rows bytes"], bits: int, columns: int) -> UInt8[Tensor, "rows columns"]:
    """The other way."""
    if bits == 8:
        return packed
    if 8 % bits == 0:
        return looked_up(codes_in_a_byte(bits).to(packed.device), packed)[:, :columns]
    return _unpacked(packed, bits, columns)


@cache
def codes_in_a_byte(bits: int) -> UInt8[Tensor, "256 codes"]:
    """What each byte holds, where codes lie across no two of them."""
    return _unpacked(torch.arange(256, dtype=torch.uint8)[:, None], bits, 8 // bits)


def _unpacked(packed: UInt8[Tensor, "rows bytes"], bits: int, columns: int) -> UInt8[Tensor, "rows columns"]:
    """``count`` codes stand in ``width`` bytes, again and again, so that each of them is read from all rows at once by a step over bytes."""
    count, width = 8 // gcd(8, bits), bits // gcd(8, bits)
    periods = -(-columns // count)
    if packed.shape[1] < periods * width:
        packed = torch.nn.functional.pad(packed, (0, periods * width - packed.shape[1]))
    codes = torch.empty((len(packed), periods * count), dtype=torch.uint8, device=packed.device)
    for i in range(count):
        byte, shift = divmod(i * bits, 8)
        column_codes = packed[:, byte::width] >> shift
        if shift + bits > 8:
            column_codes |= packed[:, byte + 1 :: width] << (8 - shift)
        torch.bitwise_and(column_codes, (1 << bits) - 1, out=codes[:, i::count])
    return codes[:, :columns]


def words(codes: UInt8[Tensor, "rows columns"], bits: int) -> Int32[Tensor, "rows words"]:
    """The same in 32-bit words, the lowest byte first, as other tools store it; each row begins on a whole word."""
    packed = pack(codes, bits)
    return torch.nn.functional.pad(packed, (0, -packed.shape[1] % 4)).view(torch.int32)


def row_bytes(columns: int, bits: int) -> int:
    return -(-columns * bits // 8)
