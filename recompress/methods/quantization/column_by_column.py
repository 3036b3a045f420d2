"""The loop of GPTQ: columns are rounded one after another, and those that are not yet make up for what each rounding did.

    q_j = scale * (clamp(round(w_j / scale) + zero) - zero)         e = (w_j - q_j) / U[j, j]         W[:, j:] -= e U[j, j:]

with U of ``recompress.layerwise.second_order`` and the steps of ``recompress.methods.quantization.grid``.
Source: Frantar et al. 2022, arXiv:2210.17323, eq. 2 and 3, algorithm 1; the order of columns is from the authors' later code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recompress.layerwise.second_order import block_of, inverse_root, permute, sweep
from recompress.methods.quantization.grid import FewBits, Grid, grid_of, quantized
from recompress.models.packed import Quantized


def root_of(hessian: Float[Tensor, "in in"], damping: float, name: str, *, act_order: bool) -> tuple[Float[Tensor, "in in"], Int[Tensor, " in"] | None]:
    """U, written over ``hessian``, and the order of its columns: those with the largest inputs first, where ``act_order`` asks for it."""
    order = None
    if act_order:
        order = hessian.diagonal().argsort(descending=True, stable=True)
        permute(hessian, order)
    return inverse_root(hessian, damping, name), order


def quantize_matrix(weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"], config: FewBits, order: Int[Tensor, " in"] | None = None) -> Quantized:
    """The codes of ``weight``; of zeros those of zero. ``root`` is U of the columns in ``order``."""
    columns = weight.shape[1]
    size, top = config.group_size or columns, (1 << config.bits) - 1
    scales, zeros = (tensor.T.contiguous() for tensor in grid_of(weight, config.bits, config.group_size, symmetric=config.symmetric, scales=config.scales))
    places = list(range(columns)) if order is None else order.tolist()
    turned = weight.T.contiguous() if order is None else weight.T[order]
    codes = torch.empty((columns, len(weight)), dtype=torch.uint8, device=weight.device)
    pruned = (turned == 0) if bool((weight == 0).any()) else None

    def settle(column: int, part: Float[Tensor, "width out"], j: int) -> Float[Tensor, " out"]:
        group = places[column] // size
        if order is None and config.group_size and column % size == 0:  # steps for the weights as earlier columns have left them
            fresh = grid_of(part[j : j + size].T, config.bits, None, symmetric=config.symmetric, scales=config.scales)
            scales[group], zeros[group] = fresh.scales[:, 0], fresh.zeros[:, 0]
        code = (part[j] / scales[group]).round_().add_(zeros[group]).clamp_(0, top)
        if pruned is not None:
            code = torch.where(pruned[column], zeros[group], code)
        codes[places[column]] = code
        return code.sub_(zeros[group]).mul_(scales[group])

    sweep(turned, root, settle, block_of(config.group_size or 1))
    return quantized(codes.T.contiguous(), Grid(scales.T.contiguous(), zeros.T.contiguous()), config)
