"""SparseGPT: zero the weights that the outputs miss least, and let the others of their row make up for them.

    score[o, j] = W[o, j]^2 / U[j, j]^2              e = W[o, j] / U[j, j] for what becomes zero        W[o, j:] -= e U[j, j:]

with U of ``recompress.layerwise.second_order``. Weights are chosen in blocks of columns, all outputs together, or in each m of a row for n:m patterns, from weights
that have made up for the columns before them. Layer after layer: a layer sees what those before it became.
Source: Frantar and Alistarh 2023, arXiv:2301.00774, eq. 3 and 4, algorithm 1.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.second_order import block_of, inverse_root, sweep
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.pruning.mask import smallest
from recompress.methods.pruning.rows import OneShot, check, numbers, prove_rows, refuse, smallest_in_rows, zeros_in
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of


class SparseGpt(OneShot):
    """How many weights of each matrix become zero."""

    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the mean of the Hessian's diagonal that is added to it."""


def prune_matrix(weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"], *, sparsity: float, pattern: str | None = None) -> None:
    """Prune ``weight`` in place. What is zero already stays so. ``root`` is U."""
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
            count = zeros_in(sparsity, rows * end) - int(zero[:, :start].sum())
            zero[:, start:end] |= smallest(scores.flatten(), min(max(count, 0), scores.numel())).view_as(scores)

    def settle(column: int, part: Float[Tensor, "width out"], j: int) -> Float[Tensor, " out"]:
        if column % (m if pattern else block) == 0:
            choose(column, part[j : j + m] if pattern else part)
        return part[j].masked_fill(zero[:, column], 0)

    sweep(turned, root, settle, block)
    weight.copy_(turned.T)


def prove(before: Checkpoint, after: Checkpoint, config: SparseGpt, inputs: Inputs) -> list[Claim]:
    """Zeros in every matrix (or every m of a row), and, where some were made, that the others moved."""
    pairs = [(old.weight, new.weight) for (_, old), (_, new) in zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)]
    if config.pattern is not None:
        claims = prove_rows(before, after, config)
    else:
        total = sum(old.numel() for old, _ in pairs)
        asked = sum(max(zeros_in(config.sparsity, old.numel()), _zeros(old)) for old, _ in pairs)
        claims = [Claim("sparsity", asked / total, sum(_zeros(new) for _, new in pairs) / total)]
    pruned = any(bool(torch.any((new == 0) & (old != 0))) for old, new in pairs)
    moved = any(bool(torch.any((new != 0) & (new != old))) for old, new in pairs)
    return [*claims, Claim("other weights make up for the zeros", float(pruned), float(moved))]


def _zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


@method(
    "sparsegpt",
    SparseGpt,
    family="pruning",
    prove=prove,
    check=check,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Frantar and Alistarh 2023, arXiv:2301.00774, eq. 3 and 4",
    shrinks="nothing by itself",
    speeds_up="nothing by itself; 2:4 on GPUs that know it",
)
def prune_sparsegpt(checkpoint: Checkpoint, config: SparseGpt, inputs: Inputs) -> Checkpoint:
    """Zero the weights that the outputs miss least, and let the others make up for them."""
    network = checkpoint.torch_network
    refuse(network, config, "sparsegpt")

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        root = inverse_root(statistics["hessian"], config.damping, next(iter(group)))
        for linear in group.values():
            prune_matrix(weight_of(linear), root, sparsity=config.sparsity, pattern=config.pattern)
        return {}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "sparsegpt", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"hessian"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "sparsegpt")
    return checkpoint
