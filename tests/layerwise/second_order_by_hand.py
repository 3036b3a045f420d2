"""Optimal brain surgery as the papers write it: the inverse of what is left of the Hessian, computed anew for every column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def damped(hessian: Tensor, damping: float) -> Tensor:
    made = hessian.double().clone()
    for i in range(len(made)):
        if made[i, i] == 0:
            made[i, i] = 1.0
    return made + damping * made.diagonal().mean() * torch.eye(len(made), dtype=torch.float64)


def by_hand(weight: Tensor, hessian: Tensor, settle: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """``settle(column, weights as they stand, [H[j:, j:]^-1]_00 for every j)`` gives the column's final values."""
    made, count = weight.double().clone(), len(hessian)
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(count)]
    firsts = torch.stack([inverse[0, 0] for inverse in inverses])
    for j in range(count):
        settled = settle(j, made, firsts)
        error = (made[:, j] - settled) / firsts[j]
        for k in range(j, count):
            made[:, k] -= error * inverses[j][0, k - j]
        made[:, j] = settled
    return made


def inputs_and_weight(rows: int, columns: int, seed: int, *, dead: bool = False) -> tuple[Tensor, Tensor]:
    """X^T X of inputs that depend on each other, and a weight."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(3 * columns, columns, generator=draw, dtype=torch.float64) @ torch.randn(columns, columns, generator=draw, dtype=torch.float64)
    if dead:
        inputs[:, 1] = 0
    return inputs.T @ inputs, torch.randn(rows, columns, generator=draw, dtype=torch.float64)


def loss(hessian: Tensor, weight: Tensor, made: Tensor) -> float:
    """|| X (W - W')^T ||^2"""
    gap = (weight - made).double()
    return float(((gap @ hessian) * gap).sum())
