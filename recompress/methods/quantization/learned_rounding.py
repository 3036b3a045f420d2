"""Rounding that is learned: an offset for each weight and, for each group, how much of its range the steps cover. What SignRound trains of a matrix, and its gradients.

    s = s0 * (alpha * (1 - z0 / top) + beta * z0 / top)          z = round(beta * z0 * s0 / s)          top = 2^bits - 1
    W^ = s * (clamp(round(W / s + V) + z, 0, top) - z)           V in [-1/2, 1/2], alpha and beta in [LEAST, 1]

s0 and z0 are the steps that the method would round with else (``recompress.methods.quantization.grid``), alpha and beta what is left of their upper and lower end; symmetric steps keep their zero, and
s = alpha * s0. With V = 0, alpha = beta = 1 this is rounding to the nearest. Gradients go straight through ``round``: with q = clamp(…), inside where nothing was clamped, and G = dL/dW^,

    dL/dV = G s inside          dL/ds = sum G (q - z - inside W / s)          dL/dz = -sum G s (1 - inside)

Zeros stay zero: half a step beside them is rounded to the even one, which is theirs.
Source: Cheng et al. 2023 (SignRound), arXiv:2309.05516, section 3, eq. 3 and 5 (rounding with V, and the steps with alpha and beta); Bengio et al. 2013, arXiv:1308.3432 (straight through).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.methods.quantization.grid import FewBits, Grid, grid_of, quantized
from recompress.models.packed import Quantized
from recompress.models.packed.scales import held_near

LEAST = 0.1
"""What is left of a range at least."""


class Choice(NamedTuple):
    """What is learned of a matrix, or the gradients of it."""

    offsets: Float[Tensor, "out in"]
    """V, in steps."""
    upper: Float[Tensor, "out groups"]
    """alpha."""
    lower: Float[Tensor, "out groups"]
    """beta."""


class Rounded(NamedTuple):
    """A matrix on steps: ``values`` stand in its place."""

    values: Float[Tensor, "out in"]
    steps: Float[Tensor, "out groups size"]
    """Codes before they are clamped."""
    grid: Grid


def start_of(weight: Float[Tensor, "out in"], config: FewBits) -> Grid:
    """s0 and z0."""
    return grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)


def nearest(weight: Float[Tensor, "out in"], start: Grid) -> Choice:
    """The choice that rounds each weight to its nearest step."""
    return Choice(torch.zeros_like(weight), torch.ones_like(start.scales), torch.ones_like(start.scales))


def grid_with(start: Grid, choice: Choice, config: FewBits) -> Grid:
    """s and z, with scales that 16 bits hold."""
    top = (1 << config.bits) - 1
    if config.symmetric:
        return Grid(start.scales.sign() * held_near((start.scales * choice.upper).abs()), start.zeros)
    below = start.zeros / top
    scales = held_near(start.scales * (choice.upper * (1 - below) + choice.lower * below))
    return Grid(scales, (choice.lower * start.zeros * start.scales / scales).round().clamp(0, top))


def round_with(weight: Float[Tensor, "out in"], start: Grid, choice: Choice, config: FewBits) -> Rounded:
    """The matrix on the steps that are chosen."""
    grid = grid_with(start, choice, config)
    scales, zeros = grid.scales[:, :, None], grid.zeros[:, :, None]
    steps = (_grouped(weight, grid) / scales).add_(_grouped(choice.offsets, grid)).round_().add_(zeros)
    return Rounded(steps.clamp(0, (1 << config.bits) - 1).sub_(zeros).mul_(scales).flatten(1), steps, grid)


def gradients(weight: Float[Tensor, "out in"], start: Grid, choice: Choice, rounded: Rounded, above: Float[Tensor, "out in"], config: FewBits) -> Choice:
    """dL/dV, dL/dalpha and dL/dbeta; ``above`` is dL/dW^, and ``rounded`` what ``round_with`` gave."""
    top, grid = (1 << config.bits) - 1, rounded.grid
    scales, zeros = grid.scales[:, :, None], grid.zeros[:, :, None]
    codes = rounded.steps.clamp(0, top)
    inside, slope = codes == rounded.steps, _grouped(above, grid)
    by_offset = (slope * scales).mul_(inside)
    by_scale = (codes.sub_(zeros).sub_((_grouped(weight, grid) / scales).mul_(inside))).mul_(slope).sum(-1)
    if config.symmetric:
        return Choice(by_offset.flatten(1), by_scale * start.scales, torch.zeros_like(by_scale))
    by_zero = -(slope * ~inside).sum(-1) * grid.scales
    below = start.zeros / top
    reach = start.zeros * start.scales / grid.scales  # z before it is rounded is beta times this
    by_scale = by_scale - by_zero * choice.lower * reach / grid.scales
    return Choice(by_offset.flatten(1), by_scale * start.scales * (1 - below), by_scale * start.scales * below + by_zero * reach)


def step(choice: Choice, slopes: Choice, rate: float) -> None:
    """A step of ``rate`` against the sign of each gradient, in place, and back into the limits."""
    for chosen, slope, least, most in zip(choice, slopes, (-0.5, LEAST, LEAST), (0.5, 1.0, 1.0), strict=True):
        chosen.sub_(slope.sign_(), alpha=rate).clamp_(least, most)


def codes_with(weight: Float[Tensor, "out in"], start: Grid, choice: Choice, config: FewBits) -> Quantized:
    """What is packed."""
    rounded = round_with(weight, start, choice, config)
    return quantized(rounded.steps.clamp(0, (1 << config.bits) - 1).to(torch.uint8).flatten(1), rounded.grid, config)


def _grouped(matrix: Float[Tensor, "out in"], grid: Grid) -> Float[Tensor, "out groups size"]:
    return matrix.reshape(len(matrix), grid.scales.shape[1], -1)
