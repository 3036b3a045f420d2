"""Numbers as codes between the least and the largest of their row.

    step = (max x - min x) / (2^bits - 1)           code = clamp(round((x - low) / step), 0, 2^bits - 1)           x ~ low + step * code,  low = min x

Step and low are kept in 16 bits, and codes are those of what is kept. Zero need not be on this grid: unlike those of weights, the channels of keys lie far from it.
Source: Liu et al. 2024 (KIVI), arXiv:2402.02750, section 2, eq. of Q and of its inverse.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from recompress.models.packed.bits import pack, unpack


class Ranges(NamedTuple):
    """Rows of numbers as codes; dimensions before the last are whatever they were."""

    codes: UInt8[Tensor, "... rows bytes"]
    steps: Float16[Tensor, "... rows"]
    lows: Float16[Tensor, "... rows"]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self)


def in_ranges(numbers: Float[Tensor, "rows columns"], bits: int) -> Ranges:
    """The nearest code of each number."""
    top = (1 << bits) - 1
    lows = numbers.amin(1).half()
    steps = ((numbers.amax(1) - numbers.amin(1)) / top).half()
    codes = (numbers - lows.float()[:, None]) / steps.float().clamp_min(1e-30)[:, None]
    return Ranges(pack(codes.round_().clamp_(0, top).to(torch.uint8), bits), steps, lows)


def out_of_ranges(ranges: Ranges, bits: int, columns: int) -> Float[Tensor, "rows columns"]:
    """What codes stand for."""
    return torch.addcmul(ranges.lows.float()[:, None], unpack(ranges.codes, bits, columns).float(), ranges.steps.float()[:, None])


def joined(first: Ranges | None, second: Ranges) -> Ranges:
    """The rows of both, one behind the other."""
    return second if first is None else Ranges(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
