"""Rounding as a part of the network: what is trained is a weight in 32-bit floats, what the network computes with is what its code stands for.

    W^ = s * (clamp(round(W / s) + z, 0, 2^b - 1) - z)

    minmax:     s and z are those of ``recompress.methods.quantization.grid``, from W as it is now         dL/dW = dL/dW^
    learned:    z = 2^(b-1), s is trained                                                          dL/dW = dL/dW^ where W / s is in range, else 0
                dL/ds = g sum_i dL/dW^_i (round(v_i) - v_i where v_i = W_i / s is in range, else the end of the range that is near)
                g = 1 / sqrt(N (2^(b-1) - 1)) for the N weights of a group;  s begins at 2 mean|W| / sqrt(2^(b-1) - 1)

What the network computes with is exactly what is packed afterwards: scales are those that 16 bits hold, in training too. Weights that were zero stay zero.
Source: Bengio et al. 2013, arXiv:1308.3432 (the gradient goes straight through); Jacob et al. 2018, arXiv:1712.05877, section 3 (training with rounding);
Esser et al. 2020 (LSQ), arXiv:1902.08153, eq. 1 to 3 and 5, section 2.2.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recompress.methods.quantization.grid import LARGEST, SMALLEST, FewBits, Grid, codes_on, grid_of, quantized, values_of
from recompress.models.packed import Quantized


class Rounding(nn.Module):
    """For ``torch.nn.utils.parametrize``: ``original`` to what its codes stand for, ``[out, in]`` or, ``turned``, ``[in, out]``."""

    def __init__(self, weight: Float[Tensor, "out in"], config: FewBits, *, learned: bool, turned: bool) -> None:
        super().__init__()
        self.config, self.turned = config, turned
        zero = weight == 0
        self.register_buffer("zero", zero if zero.any() else None, persistent=False)
        self.scales = nn.Parameter(first_scales(weight, config)) if learned else None

    def forward(self, original: Tensor) -> Tensor:
        weight = original.T if self.turned else original
        grid = self.grid(weight)
        rounded: Tensor = _Round.apply(weight, self.scales, grid, self.config.bits)  # type: ignore[no-untyped-call]
        zero = self._buffers["zero"]
        if zero is not None:
            rounded = torch.where(zero, 0, rounded)
        return rounded.T if self.turned else rounded

    @torch.no_grad()
    def grid(self, weight: Float[Tensor, "out in"]) -> Grid:
        """The steps of the weight as it is now."""
        if self.scales is None:
            return grid_of(weight, self.config.bits, self.config.group_size, symmetric=self.config.symmetric)
        held = self.scales.clamp(SMALLEST, LARGEST).half().float()
        return Grid(held, torch.full_like(held, float(1 << (self.config.bits - 1))))

    @torch.no_grad()
    def quantized(self, original: Tensor) -> Quantized:
        """The codes of the weight as it is now."""
        weight = original.T if self.turned else original
        grid = self.grid(weight)
        codes = codes_on(weight, grid, self.config.bits)
        zero = self._buffers["zero"]
        if zero is not None:
            zeros = grid.zeros.to(torch.uint8).repeat_interleave(weight.shape[1] // grid.zeros.shape[1], dim=1)
            codes = torch.where(zero, zeros, codes)
        return quantized(codes, grid, self.config)


def first_scales(weight: Float[Tensor, "out in"], config: FewBits) -> Float[Tensor, "out groups"]:
    groups = weight.reshape(len(weight), -1, config.group_size or weight.shape[1])
    return (2 * groups.abs().mean(-1) / sqrt((1 << (config.bits - 1)) - 1)).clamp(SMALLEST, LARGEST)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scales: Tensor | None, grid: Grid, bits: int) -> Tensor:
        ctx.bits, ctx.learned = bits, scales is not None
        if ctx.learned:
            ctx.save_for_backward(weight, grid.scales)
        return values_of(codes_on(weight, grid, bits), grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = gradients
        if not ctx.learned:
            return gradient, None, None, None
        weight, scales = ctx.saved_tensors
        low, high = -(1 << (ctx.bits - 1)), (1 << (ctx.bits - 1)) - 1
        places = weight.reshape(*scales.shape, -1) / scales[:, :, None]
        inside = (places >= low) & (places <= high)
        slope = torch.where(inside, places.round() - places, places.clamp(low, high))
        grouped = gradient.reshape(places.shape)
        along = (grouped * slope).sum(-1) / (places.shape[-1] * high) ** 0.5
        return (grouped * inside).reshape(weight.shape), along, None, None
