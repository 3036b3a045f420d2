"""Scales in 16 bits, however small weights are: a matrix has one power of two beside them, its lift, and 0 where 16 bits reach by themselves.

    scale = stored * 2^-lift                   form = [columns, bits + 256 * lift]

The lift is the least that brings the smallest scale to 2^-14, below which 16-bit numbers lose digits, as far as the largest allows: scales of one matrix keep
all of theirs over a range of 2^28. Multiplying by a power of two changes no digit, so that rounding does not depend on how large the weights are.
"""

from __future__ import annotations

from math import ceil, floor, log2

import torch
from jaxtyping import Float, Int32
from torch import Tensor

SMALLEST = 2.0**-14
"""The smallest 16-bit number of full precision; also the scale of a group of zeros."""
LARGEST = 65504.0
REACH = 2.0**-28
"""The smallest scale of a matrix, in units of its largest."""
DIGITS = 1 << 11
MOST = 100
"""The largest lift: 32-bit floats end soon behind it."""


def held_above(scales: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The next number of 11 binary digits that is not smaller."""
    return _held(scales, up=True)


def held_near(scales: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The nearest number of 11 binary digits."""
    return _held(scales, up=False)


def _held(scales: Float[Tensor, "..."], *, up: bool) -> Float[Tensor, "..."]:
    mantissa, exponent = torch.frexp(scales)
    digits = mantissa * DIGITS
    held = torch.ldexp((digits.ceil() if up else digits.round()) / DIGITS, exponent).to(scales.dtype).clamp_max(LARGEST)
    largest = float(held.max())
    held = held.clamp_min(max(largest * REACH, 2.0 ** -(MOST + 14)))
    return held.masked_fill(scales == 0, min(largest, SMALLEST) or SMALLEST)


def lift_of(scales: Float[Tensor, "..."], largest: float | None = None) -> int:
    """The lift with which 16 bits hold these scales, and numbers up to ``largest``, that of the scales when left out. Scales may be negative."""
    sizes = scales.abs()
    smallest, largest = float(sizes.min()), float(sizes.max()) if largest is None else largest
    if smallest >= SMALLEST or smallest <= 0:
        return 0
    return max(0, min(ceil(log2(SMALLEST / smallest)), floor(log2(LARGEST / largest)), MOST))


def lifted(numbers: Float[Tensor, "..."], lift: int) -> Float[Tensor, "..."]:
    """What is stored in 16 bits."""
    return (numbers * 2.0**lift if lift else numbers).half()


def lowered(stored: Float[Tensor, "..."], lift: int) -> Float[Tensor, "..."]:
    """What stored numbers stand for."""
    numbers = stored.float()
    return numbers * 2.0**-lift if lift else numbers


def form_of(columns: int, bits: int, lift: int, device: torch.device) -> Int32[Tensor, "2"]:
    """What the shapes of a matrix's tensors cannot say."""
    return torch.tensor([columns, bits + 256 * lift], dtype=torch.int32, device=device)


def read_form(form: Int32[Tensor, "2"]) -> tuple[int, int, int]:
    """Columns, bits and lift."""
    columns, rest = form.tolist()
    return columns, rest % 256, rest // 256
