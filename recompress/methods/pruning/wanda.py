"""Wanda: zero the weights whose size times input norm is smallest, output by output.

    score[o, i] = |W[o, i]| * ||x[:, i]||_2

Weights of one output compete with each other; those that stay are not changed. Layer after layer: the norms of a layer are those behind pruned layers.
Source: Sun et al. 2023, arXiv:2306.11695, eq. 1 and section 3.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor, nn

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.probe import below_simpler
from recompress.methods.pruning.rows import OneShot, check, prove_rows, refuse, row_blocks, smallest_in_rows
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of


class Wanda(OneShot):
    """How many weights of each output become zero."""


def wanda_mask(weight: Float[Tensor, "out in"], squares: Float[Tensor, " in"], *, sparsity: float, pattern: str | None = None) -> Bool[Tensor, "out in"]:
    """True where a weight is to become zero. ``squares`` are sums of squares of each input."""
    return smallest_in_rows(weight.abs() * squares.sqrt().to(weight.dtype), sparsity, pattern)


def prove(before: Checkpoint, after: Checkpoint, config: Wanda, inputs: Inputs) -> list[Claim]:
    """Zeros in every row, every other weight what it was, and outputs nearer to the old ones than with the smallest weights of each row gone."""

    def magnitude(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        return weight.masked_fill(smallest_in_rows(weight.abs(), config.sparsity, config.pattern), 0)

    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    moved = sum(int(((new.weight != 0) & (new.weight != old.weight)).sum()) for (_, old), (_, new) in pairs)
    return [
        *prove_rows(before, after, config),
        Claim("weights that stayed and changed", 0, moved),
        below_simpler("magnitude, row by row", before, after, inputs, magnitude),
    ]


@method(
    "wanda",
    Wanda,
    family="pruning",
    prove=prove,
    check=check,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    source="Sun et al. 2023, arXiv:2306.11695, eq. 1",
    shrinks="nothing by itself",
    speeds_up="nothing by itself; 2:4 on GPUs that know it",
)
def prune_wanda(checkpoint: Checkpoint, config: Wanda, inputs: Inputs) -> Checkpoint:
    """Zero the weights whose size times input norm is smallest, output by output."""
    network = checkpoint.torch_network
    refuse(network, config, "wanda")

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        for linear in group.values():
            for rows in row_blocks(weight_of(linear)):
                rows.masked_fill_(wanda_mask(rows, statistics["squares"], sparsity=config.sparsity, pattern=config.pattern), 0)
        return {}

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "wanda", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"squares"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "wanda")
    return checkpoint
