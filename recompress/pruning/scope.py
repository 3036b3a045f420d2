"""Among which weights the smallest is looked for: all of them, those of each matrix, or those of each row of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.pruning.mask import smallest
from recompress.pruning.rows import row_blocks, smallest_in_rows, zeros_in

Scope = Literal["global", "layer", "row"]


def smallest_masks(scores: Sequence[Float[Tensor, "_ _"]], sparsity: float, scope: Scope) -> list[Bool[Tensor, "_ _"]]:
    """True at the smallest scores; of equal ones the first. Counts are rounded down, in each group of competitors."""
    if scope == "row":
        return [torch.cat([smallest_in_rows(rows, sparsity, None) for rows in row_blocks(matrix)]) for matrix in scores]
    if scope == "layer":
        return [smallest(matrix.flatten(), zeros_in(sparsity, matrix.numel())).view(matrix.shape) for matrix in scores]
    every = torch.cat([matrix.flatten() for matrix in scores])
    chosen = torch.split(smallest(every, zeros_in(sparsity, every.numel())), [matrix.numel() for matrix in scores])
    return [mask.view(matrix.shape) for mask, matrix in zip(chosen, scores, strict=True)]


def least_zeros(zeros: Sequence[Bool[Tensor, "_ _"]], sparsity: float, scope: Scope) -> int:
    """How many zeros there must be afterwards: in each group of competitors the share that is asked for, or the ``zeros`` of before where these are more."""
    if scope == "global":
        return max(sum(int(mark.sum()) for mark in zeros), zeros_in(sparsity, sum(mark.numel() for mark in zeros)))
    groups = [mark if scope == "row" else mark.flatten()[None] for mark in zeros]
    return sum(int(group.sum(1).clamp_min(zeros_in(sparsity, group.shape[1])).sum()) for group in groups)
