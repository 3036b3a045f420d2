"""Optimal brain surgery, column by column: a weight that is changed is made up for by all columns to its right.

    H = X^T X + damping * mean(diag H) * I           U: upper Cholesky factor of H^-1, so that U[j, j]^2 = (H[j:, j:]^-1)[0, 0]
    e = (w_j - q_j) / U[j, j]                        W[:, j:] -= e U[j, j:]

Source: Frantar and Alistarh 2023 (SparseGPT), arXiv:2301.00774, section 3; Frantar et al. 2022 (GPTQ), arXiv:2210.17323, section 3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recompress.errors import InputError

BLOCK = 128
"""Columns whose errors are collected before those behind them are changed."""

Settle = Callable[[int, Float[Tensor, "width out"], int], Float[Tensor, " out"]]
"""``settle(column, part, j)``: the values that column number ``column`` is to have; ``part`` is its block as it stands now, and ``part[j]`` the column."""


def inverse_root(hessian: Float[Tensor, "n n"], damping: float, name: str = "a layer") -> Float[Tensor, "n n"]:
    """U, written over ``hessian``: a second matrix of its size would be most of the memory. Inputs that are always zero are left to themselves.

    Raises ``InputError`` when the damping is too small for the matrix to be inverted.
    """
    diagonal = hessian.diagonal()
    diagonal.masked_fill_(diagonal == 0, 1)
    diagonal += damping * diagonal.mean()
    try:
        torch.linalg.cholesky(hessian, out=hessian)
        torch.cholesky_inverse(hessian, out=hessian)
        torch.linalg.cholesky(hessian, upper=True, out=hessian)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise InputError(
            f"the inputs of {name} depend on each other, so that damping {damping:g} is too small; raise it, or give more calibration text"
        ) from None
    return hessian


def sweep(turned: Float[Tensor, "in out"], root: Float[Tensor, "in in"], settle: Settle, block: int = BLOCK) -> None:
    """Settle all columns of a weight in place, from left to right. It comes turned, so that each of its columns lies in one piece."""
    columns = len(turned)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        part = turned[start:end]
        errors = torch.empty_like(part)
        for j in range(end - start):
            row = root[start + j, start + j : end]
            settled = settle(start + j, part, j)
            torch.sub(part[j], settled, out=errors[j]).div_(row[0])
            part[j] = settled
            part[j + 1 :].addr_(row[1:], errors[j], alpha=-1)
        if end < columns:
            turned[end:].addmm_(root[start:end, end:].T, errors, alpha=-1)


def block_of(multiple: int) -> int:
    """Columns of a block that groups of ``multiple`` columns do not cross."""
    return multiple * max(1, BLOCK // multiple)


def permute(matrix: Float[Tensor, "n n"], order: Int[Tensor, " n"]) -> None:
    """``matrix[order][:, order]`` in place, along the cycles of the permutation."""
    places = order.tolist()
    seen = [False] * len(places)
    for start in range(len(places)):
        if seen[start]:
            continue
        for lines in (matrix, matrix.T):
            first = lines[start].clone()
            place = start
            while places[place] != start:
                lines[place] = lines[places[place]].clone()
                place = places[place]
            lines[place] = first
        place = start
        while not seen[place]:
            seen[place] = True
            place = places[place]
