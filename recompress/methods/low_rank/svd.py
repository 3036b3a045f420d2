"""SVD: each matrix as the product of two that comes nearest to it.

    W = U S V^T                  W ~ (U_r S_r^(1/2)) (S_r^(1/2) V_r^T)                  ||W - W'||_F^2 = sum of s_k^2 for k > r

No other matrix of that rank is nearer (Eckart and Young 1936). Needs no data, and is what every other method of its kind must beat.
Source: Eckart and Young 1936, Psychometrika 1, 211-218; on transformers as the baseline of Hsu et al. 2022, arXiv:2207.00112, section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.low_rank.rank import Rank, check_rank, share_for
from recompress.methods.low_rank.split import NOT_AFTER, NOT_BEFORE, Split, factors_for, prove_factors, refuse_factored
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear
from recompress.models.packed import place
from recompress.models.surgery import weight_of

NEAR = 1e-5
"""The largest error beyond the best possible, as a share of ||W||^2, that 32-bit floats may give."""


class Svd(Rank):
    """How large the factors may be."""


def split_matrix(weight: Float[Tensor, "out in"]) -> Split:
    """All parts, by singular value."""
    left, singular, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return Split(left * singular, right, singular)


def prove(before: Checkpoint, after: Checkpoint, config: Svd, inputs: Inputs) -> list[Claim]:
    """The ranks that were asked for, and no matrix further from what it was than it must be."""
    new = after.torch_network
    claims = prove_factors(before, after, config, lambda weight: torch.linalg.svdvals(weight.double()))
    pairs = [(weight_of(linear).double(), new.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    beyond = max((_beyond(weight, module) for weight, module in pairs if isinstance(module, FactoredLinear)), default=0.0)
    return [*claims, Claim("largest error beyond the best of its rank", 0, beyond, tolerance=NEAR)]


def _beyond(weight: Float[Tensor, "out in"], module: FactoredLinear) -> float:
    squares = torch.linalg.svdvals(weight).square()
    error = (weight - module.weight.detach().double()).square().sum()
    return float((error - squares[module.rank :].sum()) / squares.sum().clamp_min(1e-30))


@method(
    "svd",
    Svd,
    family="low_rank",
    prove=prove,
    check=check_rank,
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    not_after=NOT_AFTER,
    not_before=NOT_BEFORE,
    source="Eckart and Young 1936; Hsu et al. 2022, arXiv:2207.00112, section 3",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, where ranks are small",
)
def factor_by_svd(checkpoint: Checkpoint, config: Svd, inputs: Inputs) -> Checkpoint:
    """Each matrix as the product of two smaller ones that comes nearest to it."""
    network = checkpoint.torch_network
    refuse_factored(network)
    linears = list(encoder_linears(network))
    share = share_for(config, network, [shape_of(linear) for _, linear in linears])
    for name, linear in linears:
        factors = factors_for(linear, split_matrix(weight_of(linear)), config, share)
        if factors is not None:
            place(network, name, factors)
    return checkpoint
