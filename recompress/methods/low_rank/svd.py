"""SVD: each matrix as the product of two that comes nearest to it.

    W = U S V^T                  W ~ (U_r S_r^(1/2)) (S_r^(1/2) V_r^T)                  ||W - W'||_F^2 = sum of s_k^2 for k > r

No other matrix of that rank is nearer (Eckart and Young 1936). Needs no data, and is what every other method of its kind must beat.
Source: Eckart and Young 1936, Psychometrika 1, 211-218; on transformers as the baseline of Hsu et al. 2022, arXiv:2207.00112, section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from recompress.methods.low_rank.rank import Rank
from recompress.methods.low_rank.split import FACTORING, NEAR, Split, factor_each, prove_factors, refuse_factored
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear
from recompress.models.surgery import weight_of


class Svd(Rank):
    """How large the factors may be."""


def split_matrix(weight: Float[Tensor, "out in"]) -> Split:
    """All parts, by singular value."""
    left, singular, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return Split(left * singular, right, singular)


def prove(before: Checkpoint, after: Checkpoint, config: Svd, inputs: Inputs) -> list[Claim]:
    """The ranks that were asked for, and each matrix as far from what it was as the singular values that were left out."""
    new = after.torch_network
    weights = {name: weight_of(linear).double() for name, linear in encoder_linears(before.torch_network)}
    spectra = {name: torch.linalg.svdvals(weight) for name, weight in weights.items()}
    factored = {name: module for name in weights if isinstance(module := new.get_submodule(name), FactoredLinear)}
    beyond = [_beyond(weights[name], spectra[name].square(), module) for name, module in factored.items()]
    return [*prove_factors(before, after, config, spectra), Claim("largest error beyond the best of its rank", 0, max(beyond, key=abs, default=0), NEAR)]


def _beyond(weight: Float[Tensor, "out in"], squares: Float[Tensor, " values"], module: FactoredLinear) -> float:
    error = (weight - module.weight.detach().double()).square().sum()
    return float((error - squares[module.rank :].sum()) / squares.sum().clamp_min(1e-30))


@method("svd", Svd, prove=prove, source="Eckart and Young 1936; Hsu et al. 2022, arXiv:2207.00112, section 3", **FACTORING)
def factor_by_svd(checkpoint: Checkpoint, config: Svd, inputs: Inputs) -> Checkpoint:
    """Each matrix as the product of two smaller ones that comes nearest to it."""
    network = checkpoint.torch_network
    refuse_factored(network)
    factor_each(network, config, lambda _, weight: split_matrix(weight))
    return checkpoint
