"""Fisher-weighted SVD: inputs that the labels' loss depends on are kept better than others.

    h[i] = sum over o of F[o, i]              F = sum over examples of (d loss / d W)^2               D = diag(sqrt(h))
    W D = U S V^T                             W' = U_r S_r V_r^T D^-1 = U_r U_r^T W                   ||(W - W') D||_F^2 = sum of s_k^2 for k > r

The second form of W' needs no division, so that inputs which no label depends on do no harm. The loss is the benchmark's cross-entropy on training examples,
one at a time and without dropout. The paper writes a layer as X W, where a row of W belongs to an input; here that is a column.
Source: Hsu et al. 2022 (FWSVD), arXiv:2207.00112, section 4.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from recompress.errors import InputError, IntegrityError
from recompress.methods.calibration import calibration_features
from recompress.methods.low_rank.rank import Rank
from recompress.methods.low_rank.split import FACTORING, NEAR, Split, below_svd, factor_each, product_of_svd, prove_factors, refuse_factored
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import Linear, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import FactoredLinear
from recompress.models.heads import head_of
from recompress.models.padding import padding_of
from recompress.models.surgery import weight_of
from recompress.progress import bar
from recompress.runtimes.asking import units_of


class FisherSvd(Rank):
    """How large the factors may be, and what the loss is looked at on."""

    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, whose gradients are summed."""


def split_matrix(weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"]) -> Split:
    """All parts, by what they are worth; ``importance`` is h. Where it is zero everywhere, all inputs count the same."""
    matrix = weight.double()
    left, singular, _ = torch.linalg.svd(matrix * scale_of(importance), full_matrices=False)
    return Split(left, left.T @ matrix, singular)


def scale_of(importance: Float[Tensor, " in"]) -> Float[Tensor, " in"]:
    """The diagonal of D."""
    scale = importance.double().sqrt()
    return scale if float(importance.sum()) > 0 else torch.ones_like(scale)


def input_importance(checkpoint: Checkpoint, linears: dict[str, Linear], features: list[dict[str, Any]], label: str) -> dict[str, Float[Tensor, " in"]]:
    """h of each linear layer. Raises ``InputError`` where no example carries a label or there is only one label, and ``IntegrityError`` for gradients that
    are not finite."""
    from recompress.training.batches import collate
    from recompress.training.losses import losses_of
    from recompress.training.trainer import label_loss

    if len(checkpoint.info.labels) == 1 and head_of(checkpoint.info.benchmark).answer in ("label", "tags"):
        raise InputError(
            f"with {checkpoint.info.labels[0]} as its only label a model is never wrong, and no input matters to its loss; use svd or activation_svd"
        )
    network: Any = checkpoint.torch_network.eval()
    losses = losses_of(checkpoint.info)
    importance = {name: torch.zeros(shape_of(linear)[1], dtype=torch.float64) for name, linear in linears.items()}
    wanted = {id(linear.weight) for linear in linears.values()}
    usual = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        for parameter, _ in usual:
            parameter.requires_grad_(id(parameter) in wanted)
        with bar(label, len(features), "example") as progress, torch.enable_grad():
            for feature in features:
                batch = collate([feature], padding_of(network))
                loss: Any = label_loss(units_of(network, batch), batch, losses)
                loss.backward()
                for name, linear in linears.items():
                    squares = linear.weight.grad.double().square()
                    importance[name] += squares.sum(0 if isinstance(linear, nn.Linear) else 1)
                    linear.weight.grad = None
                progress.update(1)
    finally:
        for parameter, needed in usual:
            parameter.requires_grad_(needed)
            parameter.grad = None
    if not all(bool(values.isfinite().all()) for values in importance.values()):
        raise IntegrityError("gradients of the labels' loss are not finite on the training examples; the model is broken")
    if not any(float(values.sum()) > 0 for values in importance.values()):
        raise InputError("no gradient reaches a layer: none of the training examples carries a label; use svd or activation_svd")
    return importance


def prove(before: Checkpoint, after: Checkpoint, config: FisherSvd, inputs: Inputs) -> list[Claim]:
    """The ranks that were asked for, and what matters to the labels' loss, taken again from the examples: each matrix is as far from what it was as the parts
    that were left out, and all together nearer than with plain SVD."""
    linears = dict(encoder_linears(before.torch_network))
    features = calibration_features(before, inputs, config.calibration_examples)
    scales = {name: scale_of(h) for name, h in input_importance(before, linears, features, "fisher_svd, once more").items()}
    spectra = {name: torch.linalg.svdvals(weight_of(linear).double() * scales[name]) for name, linear in linears.items()}
    beyond, errors, plain = list[float](), list[float](), list[float]()
    for name, linear in linears.items():
        module, weight, squares = after.torch_network.get_submodule(name), weight_of(linear).double(), spectra[name].square()
        if isinstance(module, FactoredLinear):
            of_product, of_svd = (
                float(((weight - other) * scales[name]).square().sum() / squares.sum().clamp_min(1e-300))
                for other in (module.weight.detach().double(), product_of_svd(weight, module.rank))
            )
            beyond.append(of_product - float(squares[module.rank :].sum() / squares.sum().clamp_min(1e-300)))
            errors.append(of_product)
            plain.append(of_svd)
    return [
        *prove_factors(before, after, config, spectra),
        Claim("largest weighted error beyond the best of its rank", 0, max(beyond, key=abs, default=0.0), NEAR),
        below_svd("error weighted by importance", sum(plain) / max(1, len(plain)), sum(errors) / max(1, len(errors))),
    ]


@method("fisher_svd", FisherSvd, prove=prove, needs=("calibration",), source="Hsu et al. 2022 (FWSVD), arXiv:2207.00112, section 4", **FACTORING)
def factor_by_fisher(checkpoint: Checkpoint, config: FisherSvd, inputs: Inputs) -> Checkpoint:
    """Each matrix as the product of two, inputs that the labels depend on kept better than others."""
    network = checkpoint.torch_network
    refuse_factored(network)
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    importance = input_importance(checkpoint, dict(encoder_linears(network)), features, inputs.label or "fisher_svd")
    factor_each(network, config, lambda name, weight: split_matrix(weight, importance[name]))
    return checkpoint
