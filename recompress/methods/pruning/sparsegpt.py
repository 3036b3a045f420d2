"""SparseGPT: zero the weights that the outputs miss least, and let the others of their row make up for them.

    score[o, j] = W[o, j]^2 / U[j, j]^2              e = W[o, j] / U[j, j] for what becomes zero        W[o, j:] -= e U[j, j:]

with U of ``recompress.layerwise.second_order``. Weights are chosen in blocks of columns, all outputs together, or in each m of a row for n:m patterns, from weights
that have made up for the columns before them. Layer after layer: a layer sees what those before it became. With ``levels: owl`` layers with more outliers lose less
(``recompress.methods.pruning.outliers``).
Source: Frantar and Alistarh 2023, arXiv:2301.00774, eq. 3 and 4, algorithm 1. Levels: Yin et al. 2023, arXiv:2310.05175, section 3.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from recompress.layerwise.engine import Group
from recompress.layerwise.second_order import block_of, inverse_root, sweep
from recompress.layerwise.statistics import Statistics
from recompress.methods.layer_by_layer import each_group
from recompress.methods.probe import below_simpler
from recompress.methods.pruning.mask import smallest
from recompress.methods.pruning.outliers import prove_levels, zeros_of
from recompress.methods.pruning.rows import ONE_SHOT, OneShot, numbers, prove_rows, refuse, smallest_in_rows, zeros_in
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of

MADE_UP = 0.1
"""By this share of it at least the error lies below that of magnitude: without others that make up for the zeros, it would be about the same."""


class SparseGpt(OneShot):
    """How many weights of each matrix become zero."""

    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the mean of the Hessian's diagonal that is added to it."""


def prune_matrix(
    weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"], *, sparsity: float = 0.0, pattern: str | None = None, zeros: int | None = None
) -> None:
    """Prune ``weight`` in place. What is zero already stays so. ``root`` is U; ``zeros``, in the place of a share, is how many weights are to be zero."""
    n, m = numbers(pattern) if pattern else (0, 1)
    block = block_of(m)
    rows, columns = weight.shape
    diagonal = root.diagonal()
    turned = weight.T.contiguous()
    zero: Bool[Tensor, "out in"] = (turned == 0).T

    def choose(start: int, part: Float[Tensor, "width out"]) -> None:
        """For the block, or the group of an n:m pattern, that begins at ``start``."""
        end = min(start + (m if pattern else block), columns)
        scores = (part.T / diagonal[start:end]).square().masked_fill(zero[:, start:end], -1)
        if pattern:
            zero[:, start:end] |= smallest_in_rows(scores, sparsity, pattern)
        else:
            asked = zeros_in(sparsity, rows * end) if zeros is None else zeros * end // columns
            count = asked - int(zero[:, :start].sum())
            zero[:, start:end] |= smallest(scores.flatten(), min(max(count, 0), scores.numel())).view_as(scores)

    def settle(column: int, part: Float[Tensor, "width out"], j: int) -> Float[Tensor, " out"]:
        if column % (m if pattern else block) == 0:
            choose(column, part[j : j + m] if pattern else part)
        return part[j].masked_fill(zero[:, column], 0)

    sweep(turned, root, settle, block)
    weight.copy_(turned.T)


def prove(before: Checkpoint, after: Checkpoint, config: SparseGpt, inputs: Inputs) -> list[Claim]:
    """Zeros in every matrix (or every m of a row), others that moved in each matrix where zeros came, and outputs nearer to the old ones than with the smallest
    weights of each matrix gone, as many as there."""
    levels = zeros_of(before, config, inputs)

    def asked_of(name: str, weight: Float[Tensor, "out in"]) -> int:
        return zeros_in(config.sparsity, weight.numel()) if levels is None else levels[name]

    def magnitude(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        if config.pattern is not None:
            return weight.masked_fill(smallest_in_rows(weight.abs(), config.sparsity, config.pattern), 0)
        return weight.masked_fill(smallest(weight.abs().flatten(), asked_of(name, weight)).view_as(weight), 0)

    linears = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    named = [(name, old.weight, new.weight) for (name, old), (_, new) in linears]
    if config.pattern is not None:
        claims = prove_rows(before, after, config)
    else:
        total = sum(old.numel() for _, old, _ in named)
        asked = sum(max(asked_of(name, old), _zeros(old)) for name, old, _ in named)
        claims = [Claim("sparsity", asked / total, sum(_zeros(new) for _, _, new in named) / total)]
    pruned = [(old, new) for _, old, new in named if bool(torch.any((new == 0) & (old != 0)))]
    moved = sum(bool(torch.any((new != 0) & (new != old))) for old, new in pruned)
    return [
        *claims,
        *prove_levels(before, after, levels, config, by_row=False),
        Claim("matrices whose other weights make up for the zeros", len(pruned), moved),
        below_simpler("magnitude, matrix by matrix", before, after, inputs, magnitude, margin=MADE_UP),
    ]


def _zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


@method("sparsegpt", SparseGpt, prove=prove, source="Frantar and Alistarh 2023, arXiv:2301.00774, eq. 3 and 4", **ONE_SHOT)
def prune_sparsegpt(checkpoint: Checkpoint, config: SparseGpt, inputs: Inputs) -> Checkpoint:
    """Zero the weights that the outputs miss least, and let the others make up for them."""
    refuse(checkpoint.torch_network, config, "sparsegpt")
    zeros = zeros_of(checkpoint, config, inputs)

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        root = inverse_root(statistics["hessian"], config.damping, next(iter(group)))
        for name, linear in group.items():
            asked = None if zeros is None else zeros[name]
            prune_matrix(weight_of(linear), root, sparsity=config.sparsity, pattern=config.pattern, zeros=asked)
        return {}

    return each_group(checkpoint, config, inputs, "sparsegpt", {"hessian"}, visit)
