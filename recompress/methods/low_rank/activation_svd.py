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

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.layerwise.engine import Group, each_layer
from recompress.layerwise.statistics import Statistics
from recompress.methods.calibration import calibration_features
from recompress.methods.low_rank.rank import Rank, check_rank, share_for
from recompress.methods.low_rank.split import NOT_AFTER, NOT_BEFORE, Split, factors_for, prove_factors, refuse_factored
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of


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
    """The ranks that were asked for, and each matrix a projection of what it was."""
    return prove_factors(before, after, config)


@method(
    "activation_svd",
    ActivationSvd,
    family="low_rank",
    prove=prove,
    check=check_rank,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    not_after=NOT_AFTER,
    not_before=NOT_BEFORE,
    source="Wang et al. 2024 (SVD-LLM), arXiv:2403.07378, section 3.1",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, where ranks are small",
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

    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    depends_on = {"method": "activation_svd", **config.model_dump(mode="json")}
    each_layer(network, features, visit, wanted={"hessian"}, depends_on=depends_on, workdir=inputs.workdir, label=inputs.label or "activation_svd")
    return checkpoint
