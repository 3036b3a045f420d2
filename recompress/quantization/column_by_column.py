"""The loop of GPTQ: columns are rounded one after another, and those that are not yet make up for what each rounding did.

    q_j = scale * (clamp(round(w_j / scale) + zero) - zero)         e = (w_j - q_j) / U[j, j]         W[:, j:] -= e U[j, j:]

with U of ``recompress.second_order`` and the steps of ``recompress.quantization.grid``.
Source: Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3, algorithm 1; the order of columns is from the authors' later code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recompress.packed import Quantized
from recompress.quantization.grid import FewBits, Grid, codes_on, grid_of, quantized, values_of
from recompress.second_order import block_of, inverse_root, permute, sweep


def root_of(hessian: Float[Tensor, "in in"], damping: float, name: str, *, act_order: bool) -> tuple[Float[Tensor, "in in"], Int[Tensor, " in"] | None]:
    """U, written over ``hessian``, and the order of its columns: those with the largest inputs first, where ``act_order`` asks for it."""
    order = None
    if act_order:
        order = hessian.diagonal().argsort(descending=True, stable=True)
        permute(hessian, order)
    return inverse_root(hessian, damping, name), order


def quantize_matrix(weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"], config: FewBits, order: Int[Tensor, " in"] | None = None) -> Quantized:
    """The codes of ``weight``; of zeros those of zero. ``root`` is U of the columns in ``order``. Without an order, ``weight`` is overwritten."""
    columns = weight.shape[1]
    size = config.group_size or columns
    grid = grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric)
    places = list(range(columns)) if order is None else order.tolist()
    codes = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
    zero = weight == 0
    pruned = bool(zero.any())

    def settle(column: int, part: Float[Tensor, "out width"], j: int) -> Float[Tensor, " out"]:
        place = places[column]
        group = place // size
        if order is None and config.group_size and column % size == 0:  # steps for the weights as earlier columns have left them
            fresh = grid_of(part[:, j : j + size], config.bits, None, symmetric=config.symmetric)
            grid.scales[:, group], grid.zeros[:, group] = fresh.scales[:, 0], fresh.zeros[:, 0]
        one = Grid(grid.scales[:, group : group + 1], grid.zeros[:, group : group + 1])
        code = codes_on(part[:, j : j + 1], one, config.bits)
        if pruned:
            code = torch.where(zero[:, place : place + 1], one.zeros.to(torch.uint8), code)
        codes[:, place] = code[:, 0]
        return values_of(code, one)[:, 0]

    sweep(weight if order is None else weight[:, order], root, settle, block_of(config.group_size or 1))
    return quantized(codes, grid, config)
