"""Clips: for each group of a row, steps that reach less far than its largest weight, where the outputs lose less by it.

    grid(f) = steps of clamp(W, -f max|W|, f max|W|), group by group                f in FACTORS
    f_g = the best by || X_g (W_g - W_g^)^T ||^2 over the columns of group g alone

A row keeps its clips where the error of its whole output, over all groups together, is smaller with them than without, so that no row is farther from what it was on the calibration text.
Source: Lin et al. 2023 (AWQ), arXiv:2306.00978, the clip that the authors' code searches after the scales (there for all matrices but queries and keys, and without a look at the whole row).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.methods.quantization.grid import FewBits, Grid, codes_on, grid_of, values_of

FACTORS = tuple(1 - 0.05 * i for i in range(1, 11))
"""Of the largest weight of a group: 0.95 to 0.5."""
CHUNK = 1 << 16
"""Weights whose errors are computed at once."""


def clipped_grid(widened: Float[Tensor, "out in"], columns: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits) -> Grid:
    """The steps of a matrix whose columns were widened by 1 / ``columns``, and will be narrowed by them; ``hessian`` is X^T X of what flows into it."""
    grids = [_of_rows(rows, columns, hessian, config) for rows in torch.split(widened, max(1, CHUNK // widened.shape[1]))]
    return Grid(torch.cat([grid.scales for grid in grids]), torch.cat([grid.zeros for grid in grids]))


def _of_rows(rows: Float[Tensor, "some in"], columns: Float[Tensor, " in"], hessian: Float[Tensor, "in in"], config: FewBits) -> Grid:
    size = config.group_size or rows.shape[1]
    count = rows.shape[1] // size
    blocks = torch.stack([hessian[start : start + size, start : start + size] for start in range(0, rows.shape[1], size)])

    def gap(grid: Grid) -> Float[Tensor, "some in"]:
        return ((rows - values_of(codes_on(rows, grid, config.bits), grid)) * columns).to(hessian.dtype)

    def by_group(grid: Grid) -> Float[Tensor, "some groups"]:
        apart = gap(grid).reshape(len(rows), count, size)
        return (torch.einsum("ogi,gij->ogj", apart, blocks) * apart).sum(-1)

    def by_row(grid: Grid) -> Float[Tensor, " some"]:
        apart = gap(grid)
        return ((apart @ hessian) * apart).sum(-1)

    whole = grid_of(rows, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
    best, least = whole, by_group(whole)
    largest = rows.reshape(len(rows), count, size).abs().amax(-1, keepdim=True)
    for factor in FACTORS:
        reach = (factor * largest).expand(-1, -1, size).reshape(rows.shape)
        grid = grid_of(rows.clamp(-reach, reach), config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales)
        lost = by_group(grid)
        nearer = lost < least
        least = torch.where(nearer, lost, least)
        best = Grid(torch.where(nearer, grid.scales, best.scales), torch.where(nearer, grid.zeros, best.zeros))
    kept = (by_row(best) < by_row(whole))[:, None]
    return Grid(torch.where(kept, best.scales, whole.scales), torch.where(kept, best.zeros, whole.zeros))
