"""Wanda: zero the weights whose size times input norm is smallest, output by output.

    score[o, i] = |W[o, i]| * ||x[:, i]||_2

Weights of one output compete with each other; those that stay are not changed. Layer after layer: the norms of a layer are those behind pruned layers. With ``levels: owl``
layers with more outliers lose less (``recompress.methods.pruning.outliers``).
Source: Sun et al. 2023, arXiv:2306.11695, eq. 1 and section 3. Levels: Yin et al. 2023, arXiv:2310.05175, section 3.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.layer_by_layer import each_group
from recompress.methods.probe import below_simpler
from recompress.methods.pruning.outliers import prove_levels, row_zeros, zeros_of
from recompress.methods.pruning.rows import LESS, ONE_SHOT, OneShot, prove_rows, refuse, row_blocks, smallest_in_rows, smallest_of_rows
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of


class Wanda(OneShot):
    """How many weights of each output become zero."""


def wanda_mask(
    weight: Float[Tensor, "out in"],
    squares: Float[Tensor, " in"],
    *,
    sparsity: float = 0.0,
    pattern: str | None = None,
    counts: Int[Tensor, " out"] | None = None,
) -> Bool[Tensor, "out in"]:
    """True where a weight is to become zero. ``squares`` are sums of squares of each input; ``counts``, in the place of a share, how many of each row go."""
    scores = weight.abs() * squares.sqrt().to(weight.dtype)
    return smallest_in_rows(scores, sparsity, pattern) if counts is None else smallest_of_rows(scores, counts)


def prove(before: Checkpoint, after: Checkpoint, config: Wanda, inputs: Inputs) -> list[Claim]:
    """Zeros in every row, every other weight what it was, and outputs nearer to the old ones than with the smallest weights of each row gone, as many as there."""
    zeros = zeros_of(before, config, inputs)
    linears = dict(encoder_linears(before.torch_network))
    counts = None if zeros is None else {name: row_zeros(zeros[name], len(weight_of(linear))) for name, linear in linears.items()}

    def magnitude(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        sizes = weight.abs()
        return weight.masked_fill(smallest_in_rows(sizes, config.sparsity, config.pattern) if counts is None else smallest_of_rows(sizes, counts[name]), 0)

    pairs = zip(linears.values(), (new for _, new in encoder_linears(after.torch_network)), strict=True)
    moved = sum(int(((new.weight != 0) & (new.weight != old.weight)).sum()) for old, new in pairs)
    return [
        *prove_rows(before, after, config, counts),
        *prove_levels(before, after, zeros, config, by_row=True),
        Claim("weights that stayed and changed", 0, moved),
        below_simpler("magnitude, row by row", before, after, inputs, magnitude, margin=LESS),
    ]


@method("wanda", Wanda, prove=prove, source="Sun et al. 2023, arXiv:2306.11695, eq. 1", **ONE_SHOT)
def prune_wanda(checkpoint: Checkpoint, config: Wanda, inputs: Inputs) -> Checkpoint:
    """Zero the weights whose size times input norm is smallest, output by output."""
    refuse(checkpoint.torch_network, config, "wanda")
    zeros = zeros_of(checkpoint, config, inputs)

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        for name, linear in group.items():
            blocks = row_blocks(weight_of(linear))
            counts = [None] * len(blocks) if zeros is None else torch.split(row_zeros(zeros[name], len(weight_of(linear))), len(blocks[0]))
            for rows, part in zip(blocks, counts, strict=True):
                rows.masked_fill_(wanda_mask(rows, statistics["squares"], sparsity=config.sparsity, pattern=config.pattern, counts=part), 0)
        return {}

    return each_group(checkpoint, config, inputs, "wanda", {"squares"}, visit)
