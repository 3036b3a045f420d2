"""Optimal brain surgery as the papers write it: the inverse of what is left of the Hessian, computed anew for every column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def damped(hessian: Tensor, damping: float) -> Tensor:
    matrix = hessian.double().clone()
    for i in range(len(matrix)):
        if matrix[i, i] == 0:
            matrix[i, i] = 1.0
    return matrix + damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)


def by_hand(weight: Tensor, hessian: Tensor, settle: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """``settle(column, weights as they stand, [H[j:, j:]^-1]_00 for every j)`` gives the column's final values."""
    matrix, count = weight.double().clone(), len(hessian)
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(count)]
    firsts = torch.stack([inverse[0, 0] for inverse in inverses])
    for j in range(count):
        settled = settle(j, matrix, firsts)
        error = (matrix[:, j] - settled) / firsts[j]
        for k in range(j, count):
            matrix[:, k] -= error * inverses[j][0, k - j]
        matrix[:, j] = settled
    return matrix


def inputs_and_weight(rows: int, columns: int, seed: int, *, dead: bool = False) -> tuple[Tensor, Tensor]:
    """X^T X of inputs that depend on each other, and a weight."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3 * columns, columns, generator=draw, dtype=torch.float64) @ torch.randn(columns, columns, generator=draw, dtype=torch.float64)
    if dead:
        inputs[:, 1] = 0
    return inputs.T @ inputs, torch.randn(rows, columns, generator=draw, dtype=torch.float64)


def loss(hessian: Tensor, weight: Tensor, other: Tensor) -> float:
    """|| X (W - W')^T ||^2"""
    gap = (weight - other).double()
    return float(((gap @ hessian) * gap).sum())
