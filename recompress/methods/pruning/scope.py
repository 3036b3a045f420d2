"""Where zeros may be: among which weights the smallest is looked for (all, those of each matrix, or of each row of it), and how many each matrix has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.methods.pruning.mask import smallest
from recompress.methods.pruning.rows import row_blocks, smallest_in_rows, zeros_in

Scope = Literal["global", "layer", "row"]
Distribution = Literal["uniform", "erdos_renyi"]


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


def out_of_order(
    scores: Sequence[Float[Tensor, "_ _"]], was: Sequence[Bool[Tensor, "_ _"]], now: Sequence[Bool[Tensor, "_ _"]], scope: Scope, group: int = 0
) -> int:
    """Groups of competitors in which something became zero (``now``, and not ``was``) that scores more than something which stayed. A ``group`` of so many in a
    row stands in the place of ``scope``."""
    wrong = 0
    for score, old, new in _competitors(scores, was, now, scope, group):
        gone = score.masked_fill(old | ~new, -torch.inf).amax(-1)
        wrong += int((gone > score.masked_fill(new, torch.inf).amin(-1)).sum())
    return wrong


def _competitors(
    scores: Sequence[Tensor], was: Sequence[Tensor], now: Sequence[Tensor], scope: Scope, group: int
) -> Iterator[tuple[Float[Tensor, "groups members"], Bool[Tensor, "groups members"], Bool[Tensor, "groups members"]]]:
    if group or scope == "row":
        yield from (
            (a.reshape(-1, width), b.reshape(-1, width), c.reshape(-1, width))
            for a, b, c in zip(scores, was, now, strict=True)
            for width in (group or a.shape[1],)
        )
    elif scope == "layer":
        yield from ((a.reshape(1, -1), b.reshape(1, -1), c.reshape(1, -1)) for a, b, c in zip(scores, was, now, strict=True))
    else:
        every, before, after = (torch.cat([matrix.flatten() for matrix in matrices])[None] for matrices in (scores, was, now))
        yield every, before, after


def zeros_of(shapes: Sequence[tuple[int, int]], share: float, distribution: Distribution) -> list[int]:
    """How many weights of each matrix are zero: ``share`` of all in sum, rounded down. What rounding leaves over goes to the first matrices."""
    sizes = [rows * columns for rows, columns in shapes]
    total = zeros_in(share, sum(sizes))
    density = [1 - share] * len(sizes) if distribution == "uniform" else _erdos_renyi(shapes, sum(sizes) - total)
    zeros = [int(size * (1 - part) + 1e-9) for size, part in zip(sizes, density, strict=True)]
    for i, part in enumerate(density):
        if part < 1 and sum(zeros) < total:
            zeros[i] += 1
    return zeros


def _erdos_renyi(shapes: Sequence[tuple[int, int]], alive: int) -> list[float]:
    """The density of each matrix; those that would be denser than dense are dense, and the others share what is left."""
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        raw = sum(sum(shapes[i]) for i in rest)
        left = alive - sum(shapes[i][0] * shapes[i][1] for i in dense)
        scale = left / raw if raw else 0.0
        density = [1.0 if i in dense else scale * sum(shape) / (shape[0] * shape[1]) for i, shape in enumerate(shapes)]
        over = {i for i in rest if density[i] > 1}
        if not over:
            return density
        dense |= over
