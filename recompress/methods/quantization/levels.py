"""Levels for the weights of a row, and the nearest of them for each weight: quantiles of the normal distribution, or weighted means.

    nf4:      the quantiles are evenly spaced on each side of zero, and zero is one of them
    kmeans:   level_k = sum_{i: code[i] = k} h[i] W[o, i] / sum_{i: code[i] = k} h[i], from the row's quantiles on, until nothing moves

Source: Dettmers et al. 2023 (QLoRA), arXiv:2305.14314, eq. 4 and appendix E (nf4); Han et al. 2016, arXiv:1510.00149, section 3 (k-means).
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from recompress.models.packed import Quantized
from recompress.models.packed.scales import LARGEST, held_above

NF4_OFFSET = 0.9677083
"""The outermost quantile, from the authors' code: the mean of 1 - 1/30 and 1 - 1/32."""
FINE = 2.0**-10
"""Levels of a row whose largest is above it are stored as they are."""


def nf4_levels() -> Float[Tensor, "16"]:
    """Seven levels below zero, zero, and eight above; in 16 bits, as they are stored."""
    normal = NormalDist()
    above = [normal.inv_cdf(NF4_OFFSET + (0.5 - NF4_OFFSET) * i / 8) for i in range(8)]
    below = [-normal.inv_cdf(NF4_OFFSET + (0.5 - NF4_OFFSET) * i / 7) for i in range(7)]
    levels = torch.tensor(sorted([*above, 0.0, *below]), dtype=torch.float64)
    return (levels / levels.max()).half().float()


def by_nf4(weight: Float[Tensor, "out in"], group_size: int | None) -> Quantized:
    """The nearest of the 16 levels, in units of the group's largest weight."""
    levels = nf4_levels().to(weight)
    groups = weight.reshape(len(weight), -1, group_size or weight.shape[1])
    scales = held_above(groups.abs().amax(-1))
    codes = nearest((groups / scales[:, :, None]).flatten(1), levels[None])
    return Quantized(codes, 4, scales, levels=levels[None])


def by_kmeans(weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"], bits: int, rounds: int) -> Quantized:
    """The levels of each row and the nearest of them for each weight. A level that no weight is nearest to stays where it is."""
    levels = first_levels(weight, 1 << bits)
    heavy = importance.to(weight).expand_as(weight)
    for _ in range(rounds):
        codes = nearest(weight, levels).long()
        mass = torch.zeros_like(levels).scatter_add_(1, codes, heavy)
        total = torch.zeros_like(levels).scatter_add_(1, codes, heavy * weight)
        moved = torch.where(mass > 0, total / mass.clamp_min(1e-30), levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    scales = _units(levels)
    weight, levels = weight / scales, (levels / scales).sort(dim=1).values.clamp(-LARGEST, LARGEST).half().to(weight.dtype)
    pruned = (weight == 0).any(1, keepdim=True)
    middle = levels.abs().argmin(1, keepdim=True)
    levels = levels.scatter(1, middle, levels.gather(1, middle).masked_fill(pruned, 0))
    return Quantized(nearest(weight, levels), bits, scales, levels=levels)


def first_levels(weight: Float[Tensor, "out in"], count: int) -> Float[Tensor, "out codes"]:
    """Quantiles of each row; where some weights are zero, zero and the quantiles of the others: many levels would begin at zero, and never leave it."""

    def places(number: int) -> Float[Tensor, " number"]:
        return (torch.arange(number, device=weight.device, dtype=weight.dtype) + 0.5) / number

    levels = torch.quantile(weight, places(count), dim=1).T.contiguous()
    pruned = (weight == 0).any(1)
    if bool(pruned.any()):
        rows = weight[pruned]
        others = torch.nanquantile(rows.masked_fill(rows == 0, torch.nan), places(count - 1), dim=1).T.nan_to_num(0)
        levels[pruned] = torch.cat([others, torch.zeros_like(others[:, :1])], 1).sort(dim=1).values
    return levels


def _units(levels: Float[Tensor, "out codes"]) -> Float[Tensor, "out 1"]:
    """1, and a power of two for rows whose levels would lose digits in 16 bits."""
    largest = levels.abs().amax(1, keepdim=True)
    return torch.where((largest >= FINE) | (largest == 0), 1.0, torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent))


def nearest(weight: Float[Tensor, "out in"], levels: Float[Tensor, "#out codes"]) -> UInt8[Tensor, "out in"]:
    """The number of the nearest level of each weight; of two that are as near, the lower. ``levels`` rise."""
    middles = ((levels[:, 1:] + levels[:, :-1]) / 2).expand(len(weight), -1).contiguous()
    return torch.searchsorted(middles, weight.contiguous()).to(torch.uint8)
