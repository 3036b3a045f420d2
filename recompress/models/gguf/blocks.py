"""Codes of packed weights in the blocks of a GGUF file, none of them rounded again.

    Q4_0: W = d * (q - 8)          Q4_1: W = d * q + m          Q8_0: W = d * q, -128 <= q <= 127          d, m in 16 bits; 32 columns to a block

    symmetric codes of 2 to 4 bits:   d = scale     q = code - 2^(bits - 1) + 8
    codes of 2 to 4 bits with zeros:  d = scale     q = code                        m = - scale * zero
    symmetric codes of 8 bits:        d = scale     q = code - 128

Codes stay what they are. A scale is a 16-bit number already, but for the smallest (``recompress.models.packed.scales``); m has more digits than 16 bits hold, so that
a group may be shifted by 2^-11 of it. A group of 64 or 128 columns is two or four blocks with one scale.
Source: llama.cpp, ``ggml-quants.c``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recompress.errors import InputError
from recompress.models.gguf.tensors import Place, rows_of
from recompress.models.gguf.writing import BLOCK, Coded
from recompress.models.packed import Packed, unpack
from recompress.models.packed.scales import lowered

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def blocks_at(place: Place) -> Coded:
    """The packed matrix at a place. Raises ``InputError`` for one that no block can say."""
    return blocks_of(place.name, place.module, rows_of(place), folded=place.factors is not None)


def blocks_of(name: str, packed: Packed, order: Tensor | None = None, *, folded: bool = False) -> Coded:
    """A packed matrix, its rows in ``order``; ``folded``: the norm before it takes the factors of its columns. Raises ``InputError`` for one that no block can say;
    ``name`` is what the error calls it."""
    check_steps(name, packed, folded=folded)
    tensors, columns = packed.tensors, packed.columns_count
    scales = lowered(tensors["scales"], packed.lift)
    codes = unpack(tensors["codes"], packed.bits, columns)
    zeros = tensors.get("zeros")
    if order is not None:
        codes, scales, zeros = codes[order], scales[order], None if zeros is None else zeros[order]
    repeats = columns // BLOCK // scales.shape[1]
    steps = _halves(scales.repeat_interleave(repeats, dim=1))
    if packed.bits == 8:
        return Coded("Q8_0", _joined(columns, steps, (codes.to(torch.int16) - 128).to(torch.int8).view(torch.uint8).view(len(codes), -1, BLOCK).numpy()))
    if zeros is None:
        return Coded("Q4_0", _joined(columns, steps, _nibbles(codes + (8 - (1 << (packed.bits - 1))))))
    lowest = _halves((-scales * zeros.float()).repeat_interleave(repeats, dim=1))
    return Coded("Q4_1", _joined(columns, steps, lowest, _nibbles(codes)))


def check_steps(name: str, packed: Packed, *, folded: bool = False) -> None:
    """Raises ``InputError`` for what has no place in a block."""
    tensors, columns = packed.tensors, packed.columns_count
    for other, what in (("levels", "levels of a codebook"), ("codebooks", "codes of several numbers"), ("places", "outliers in 16 bits")):
        if other in tensors:
            raise InputError(f"{name} holds {what}, and GGUF has even steps only; pack it with rtn, gptq, signround, qat or mixed_precision")
    if not folded and "columns" in tensors and not bool((tensors["columns"] == 1).all()):
        raise InputError(f"{name} has a factor for each column, which GGUF has no place for; pack it with awq: {{foldable: true}}, gptq or rtn")
    group = columns // tensors["scales"].shape[1]
    if group % BLOCK:
        raise InputError(f"{name} has groups of {group} columns, and GGUF has blocks of {BLOCK}; choose a group_size of {BLOCK}, {2 * BLOCK}, {4 * BLOCK} …")
    if packed.bits == 8 and "zeros" in tensors:
        raise InputError(f"{name} has 8 bits with zero points, and GGUF has none there; pack it with symmetric: true")


def _halves(numbers: Tensor) -> Bytes:
    """Each number as two bytes."""
    halves: Bytes = numbers.half().contiguous().numpy().view(np.uint8)
    return halves.reshape(*numbers.shape, 2)


def _nibbles(codes: Tensor) -> Bytes:
    """Column i of a block in the lower half of byte i, column i + 16 in the upper."""
    low, high = codes.view(len(codes), -1, 2, BLOCK // 2).unbind(dim=2)
    packed: Bytes = (low | (high << 4)).numpy()
    return packed


def _joined(columns: int, *parts: Bytes) -> Bytes:
    rows: Bytes = np.concatenate(parts, axis=-1)
    return np.ascontiguousarray(rows.reshape(len(rows), -1))
