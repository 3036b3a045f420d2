"""Activation-aware SVD: the product that changes a layer's outputs least, on the text at hand.

    X^T X = L L^T (Cholesky)                  W L = U S V^T                W' = U_r S_r V_r^T L^-1 = U_r U_r^T W
    ||X W^T - X W'^T||_F^2 = ||(W - W') L||_F^2 = sum of s_k^2 for k > r

so that a singular value is the error of leaving it out. The second form of W' needs no inverse. Layer after layer: the inputs of a later layer are those
behind factored ones. ``damping`` of the mean of its diagonal is added to that of X^T X, so that it can be factored.
Source: Wang et al. 2024 (SVD-LLM), arXiv:2403.07378, section 3.1 (truncation-aware data whitening).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.layerwise.engine import Group
from recompress.layerwise.statistics import Statistics
from recompress.methods.layer_by_layer import each_group
from recompress.methods.low_rank.rank import Rank, share_for
from recompress.methods.low_rank.split import FACTORING, NEAR, Split, below_svd, factors_for, product_of_svd, prove_factors, refuse_factored, refuse_whole
from recompress.methods.probe import output_errors
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear, is_factored
from recompress.models.surgery import weight_of

OTHER_TEXT = 0.5
"""How far what is lost on the probe may lie from what is lost on all of the calibration text, as a share of it."""


class ActivationSvd(Rank):
    """How large the factors may be, and what the error is judged on."""

    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the mean of the diagonal of X^T X that is added to it."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def whitening(hessian: Float[Tensor, "in in"], damping: float, name: str = "a layer") -> Float[Tensor, "in in"]:
    """L, written over ``hessian``, which is X^T X. Raises ``InputError`` when the damping is too small."""
    diagonal = hessian.diagonal()
    diagonal.masked_fill_(diagonal == 0, 1)
    diagonal += damping * diagonal.mean()
    try:
        torch.linalg.cholesky(hessian, out=hessian)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise InputError(
            f"the inputs of {name} depend on each other, so that damping {damping:g} is too small; raise it, or give more calibration text"
        ) from None
    return hessian


def split_matrix(weight: Float[Tensor, "out in"], root: Float[Tensor, "in in"]) -> Split:
    """All parts, by the error of leaving them out. ``root`` is L."""
    left, singular, _ = torch.linalg.svd(weight @ root, full_matrices=False)
    return Split(left, left.T @ weight, singular)


def prove(before: Checkpoint, after: Checkpoint, config: ActivationSvd, inputs: Inputs) -> list[Claim]:
    """The ranks that were asked for, each matrix a projection of what it was, and outputs nearer to the old ones than those of plain SVD. Where the energy was
    given: it is there, and with one part fewer it would not be."""
    network = after.torch_network
    factored = {name: module for name, _ in encoder_linears(before.torch_network) if isinstance(module := network.get_submodule(name), FactoredLinear)}

    def plain(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        return product_of_svd(weight, factored[name].rank).to(weight.dtype) if name in factored else weight

    def one_fewer(name: str, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        if name not in factored:
            return weight
        shorter: Float[Tensor, "out in"] = factored[name].second.weight[:, :-1] @ factored[name].first.weight[:-1]
        return shorter

    errors = output_errors(before, after, inputs, plain)
    claims = [*prove_factors(before, after, config), below_svd("error of the layers' outputs", errors.simpler, errors.method)]
    if config.energy is None or not factored:
        return claims
    of_all = sum(1 for _ in encoder_linears(before.torch_network)) / len(factored)  # those that are whole have no error, and no part to do without
    fewer, slack = output_errors(before, after, inputs, one_fewer), NEAR + OTHER_TEXT * (1 - config.energy)
    return [
        *claims,
        Claim("energy of the outputs that is left", config.energy, 1 - of_all * fewer.method, slack, "at least"),
        Claim("energy that one part fewer would leave", config.energy, 1 - of_all * fewer.simpler, slack, "at most"),
    ]


@method(
    "activation_svd",
    ActivationSvd,
    prove=prove,
    needs=("calibration",),
    source="Wang et al. 2024 (SVD-LLM), arXiv:2403.07378, section 3.1",
    **FACTORING,
)
def factor_by_activation(checkpoint: Checkpoint, config: ActivationSvd, inputs: Inputs) -> Checkpoint:
    """Each matrix as the product of two that changes the layer's outputs least on calibration text."""
    network = checkpoint.torch_network
    refuse_factored(network)
    share = share_for(config, network, [shape_of(linear) for _, linear in encoder_linears(network)])

    def visit(group: Group, statistics: Statistics) -> Mapping[str, nn.Module]:
        root = whitening(statistics["hessian"], config.damping, next(iter(group)))
        every = {name: factors_for(linear, split_matrix(weight_of(linear), root), config, share) for name, linear in group.items()}
        return {name: factors for name, factors in every.items() if factors is not None}

    each_group(checkpoint, config, inputs, "activation_svd", {"hessian"}, visit)
    if not is_factored(network):
        refuse_whole(config, "every matrix")
    return checkpoint
