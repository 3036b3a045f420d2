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

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError, IntegrityError
from recompress.methods.calibration import calibration_features
from recompress.methods.low_rank.rank import Rank, check_rank, share_for
from recompress.methods.low_rank.split import NOT_AFTER, NOT_BEFORE, Split, factors_for, prove_factors, refuse_factored
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import SIX, Linear, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import place
from recompress.models.surgery import weight_of
from recompress.progress import bar


class FisherSvd(Rank):
    """How large the factors may be, and what the loss is looked at on."""

    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, whose gradients are summed."""


def split_matrix(weight: Float[Tensor, "out in"], importance: Float[Tensor, " in"]) -> Split:
    """All parts, by what they are worth; ``importance`` is h. Where it is zero everywhere, all inputs count the same."""
    matrix = weight.double()
    scale = importance.double().sqrt() if float(importance.sum()) > 0 else torch.ones(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    left, singular, _ = torch.linalg.svd(matrix * scale, full_matrices=False)
    return Split(left, left.T @ matrix, singular)


def input_importance(checkpoint: Checkpoint, linears: dict[str, Linear], features: list[dict[str, Any]], label: str) -> dict[str, Float[Tensor, " in"]]:
    """h of each linear layer. Raises ``InputError`` where no example carries a label, and ``IntegrityError`` for gradients that are not finite."""
    from recompress.training.batches import collate
    from recompress.training.trainer import label_loss

    network: Any = checkpoint.torch_network.eval()
    importance = {name: torch.zeros(shape_of(linear)[1], dtype=torch.float64) for name, linear in linears.items()}
    wanted = {id(linear.weight) for linear in linears.values()}
    usual = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        for parameter, _ in usual:
            parameter.requires_grad_(id(parameter) in wanted)
        with bar(label, len(features), "example") as progress, torch.enable_grad():
            for feature in features:
                batch = collate([feature], checkpoint.tokenizer.pad_token_id or 0)
                logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                loss: Any = label_loss(logits if logits.ndim == 3 else logits[:, None], batch)
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
    """The ranks that were asked for, and each matrix a projection of what it was."""
    return prove_factors(before, after, config)


@method(
    "fisher_svd",
    FisherSvd,
    family="low_rank",
    prove=prove,
    check=check_rank,
    needs=("calibration",),
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    not_after=NOT_AFTER,
    not_before=NOT_BEFORE,
    source="Hsu et al. 2022 (FWSVD), arXiv:2207.00112, section 4",
    shrinks="parameters and bytes",
    speeds_up="CPU and GPU, where ranks are small",
)
def factor_by_fisher(checkpoint: Checkpoint, config: FisherSvd, inputs: Inputs) -> Checkpoint:
    """Each matrix as the product of two, inputs that the labels depend on kept better than others."""
    network = checkpoint.torch_network
    refuse_factored(network)
    linears = dict(encoder_linears(network))
    share = share_for(config, network, [shape_of(linear) for linear in linears.values()])
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    importance = input_importance(checkpoint, linears, features, inputs.label or "fisher_svd")
    for name, linear in linears.items():
        factors = factors_for(linear, split_matrix(weight_of(linear), importance[name]), config, share)
        if factors is not None:
            place(network, name, factors)
    return checkpoint
