"""Eight bits, and some columns in sixteen.

    weight[o, i] = scale[o] * (code[o, i'] - 128)          i' : the place of i among the columns that are no outliers
    weight[o, i] = outlier[o, k]                           where i is the k-th outlier

Inputs are rounded too, row by row, and the products of the two are summed as whole numbers:

    t[n] = max|x[n, i']| / 127                             u[n, i'] = round(x[n, i'] / t[n])
    y[n, o] = t[n] * scale[o] * sum_i' u[n, i'] * (code[o, i'] - 128)  +  sum_k x[n, k] * outlier[o, k]

Source: Dettmers et al. 2022 (LLM.int8), arXiv:2208.07339, eq. 2 to 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

TOP = 127
ZERO = 128
EXACT = 1 << 10
"""Columns that are summed at once: 127 * 127 * 1024 < 2^24, so that a 32-bit float holds every sum of so many products exactly, in any order."""
DTYPES = {"codes": torch.uint8, "form": torch.int32, "scales": torch.float16, "outliers": torch.float16, "places": torch.int32}
NEEDED = set(DTYPES)


class WithOutliers(NamedTuple):
    """A matrix in 8 bits, but for the columns at ``places``, which rise."""

    codes: UInt8[Tensor, "rows inliers"]
    scales: Float[Tensor, "rows 1"]
    outliers: Float[Tensor, "rows outliers"]
    places: Int[Tensor, " outliers"]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.codes.shape[1] + len(self.places)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store."""
        form = torch.tensor([self.shape[1], 8], dtype=torch.int32, device=self.codes.device)
        tensors = {"codes": self.codes, "form": form, "scales": self.scales, "outliers": self.outliers, "places": self.places}
        return {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in tensors.items()}


def values(stored: Mapping[str, Tensor], part: Any, columns: int, bits: int) -> Float[Tensor, "part columns"]:
    """Some rows of the matrix, as floats."""
    inner = _inner(stored["places"], columns)
    codes = stored["codes"][part].float()
    matrix = codes.new_empty((len(codes), columns))
    matrix[:, inner] = codes.sub_(ZERO).mul_(stored["scales"][part].float())
    matrix[:, ~inner] = stored["outliers"][part].float()
    return matrix


def fits(tensors: Mapping[str, Tensor], rows: int, columns: int, bits: int) -> bool:
    """Whether stored tensors belong to each other."""
    codes, scales, outliers, places = (tensors[name] for name in ("codes", "scales", "outliers", "places"))
    return all(
        [
            bits == 8,
            places.ndim == 1 and bool((places.diff() > 0).all()) and bool(((places >= 0) & (places < columns)).all()),
            codes.shape[1] + len(places) == columns,
            tuple(scales.shape) == (rows, 1),
            tuple(outliers.shape) == (rows, len(places)),
        ]
    )


def product(stored: Mapping[str, Tensor], given: Float[Tensor, "... columns"], columns: int) -> Float[Tensor, "... rows"]:
    """``given`` times the matrix, inliers in 8 bits on both sides."""
    inner = _inner(stored["places"], columns)
    rows = given.flatten(0, -2).float()
    with torch.autocast(given.device.type, enabled=False):  # whole numbers of 16 bits do not survive in bfloat16
        codes, steps = rounded_rows(rows[:, inner])
        sums = whole_product(codes, stored["codes"].float().sub_(ZERO))
        outputs = sums.mul_(steps).mul_(stored["scales"].float().T)
        outputs = outputs.addmm_(rows[:, ~inner], stored["outliers"].float().T)
    return outputs.view(*given.shape[:-1], -1).to(given.dtype)


def rounded_rows(rows: Float[Tensor, "tokens columns"]) -> tuple[Float[Tensor, "tokens columns"], Float[Tensor, "tokens 1"]]:
    """Whole numbers in [-127, 127], and the step of each row."""
    if not rows.shape[1]:
        return rows, rows.new_ones((len(rows), 1))
    steps = rows.abs().amax(1, keepdim=True).div_(TOP).clamp_min_(torch.finfo(torch.float32).tiny)
    return (rows / steps).round_().clamp_(-TOP, TOP), steps


def whole_product(left: Float[Tensor, "tokens columns"], right: Float[Tensor, "rows columns"]) -> Float[Tensor, "tokens rows"]:
    """``left @ right.T`` of whole numbers in [-127, 127], exact: in floats where these are exact, and summed as 32-bit integers. The same on all machines."""
    total = torch.zeros((len(left), len(right)), dtype=torch.int32, device=left.device)
    for start in range(0, left.shape[1], EXACT):
        part = slice(start, start + EXACT)
        total += (left[:, part] @ right[:, part].T).to(torch.int32)
    return total.float()


def _inner(places: Int[Tensor, " outliers"], columns: int) -> Bool[Tensor, " columns"]:
    inner = torch.ones(columns, dtype=torch.bool, device=places.device)
    inner[places.long()] = False
    return inner
