"""Magnitude: zero the weights that are smallest.

    score[o, i] = |W[o, i]|

Source: Han et al. 2015, arXiv:1506.02626, section 3 (by layer or over all); Mishra et al. 2021, arXiv:2104.08378, section 3 (n of m).
Zeros are stored like other numbers: alone, this method saves neither bytes nor time. It keeps quality in fewer weights, for what comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from recompress.architecture import encoder_linears
from recompress.checkpoint import Checkpoint
from recompress.errors import InputError
from recompress.method import Claim, Inputs, method
from recompress.pruning.mask import smallest, sparsity
from recompress.settings import Settings, Share
from recompress.surgery import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pattern = Annotated[str, Field(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$")]


class Magnitude(Settings):
    """How many weights of the encoder's linear layers become zero, and among which they compete."""

    sparsity: Share = 0.5
    """Share of the weights set to zero."""
    scope: Literal["global", "layer", "row"] = "layer"
    """The smallest of all weights, of each matrix, or of each row of a matrix (the weights of one output)."""
    pattern: Pattern | None = None
    """``n:m``: of each m weights in a row, n stay; 2:4 is what some GPUs can use. It stands in the place of ``sparsity`` and ``scope``."""


def check(config: Magnitude) -> None:
    """Raises ``InputError`` for a pattern that keeps everything, or that says something else than the sparsity."""
    if config.pattern is None:
        return
    n, m = _numbers(config.pattern)
    if n >= m:
        raise InputError(f"pattern {config.pattern} keeps {n} of {m} weights; n is less than m, as in 2:4")
    if "sparsity" in config.model_fields_set and abs(config.sparsity - (1 - n / m)) > 1e-9:
        raise InputError(f"sparsity {config.sparsity:g} contradicts pattern {config.pattern}, which zeroes {1 - n / m:g}; leave sparsity out")


def magnitude_mask(weight: Float[Tensor, "out in"], *, sparsity: float, rows: bool) -> Bool[Tensor, "out in"]:
    """True where a weight is to become zero: the smallest of the matrix, or of each of its rows; counts are rounded down."""
    scores = weight.abs()
    if not rows:
        return smallest(scores.flatten(), zeros_in(sparsity, scores.numel())).view_as(scores)
    count = zeros_in(sparsity, scores.shape[1])
    order = scores.argsort(dim=1, stable=True)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, :count], True)


def pattern_mask(weight: Float[Tensor, "out in"], n: int, m: int) -> Bool[Tensor, "out in"]:
    """True where a weight is to become zero: all but the ``n`` largest of each ``m`` neighbours in a row. ``in`` must be a multiple of ``m``."""
    groups = weight.abs().reshape(len(weight), -1, m)
    order = groups.argsort(dim=-1, stable=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., : m - n], True).flatten(1)


def zeros_in(sparsity: float, count: int) -> int:
    """Whole weights in a share, rounded down."""
    return int(sparsity * count + 1e-9)


def prove(before: Checkpoint, after: Checkpoint, config: Magnitude) -> list[Claim]:
    """The share of zeros: in each group of competitors as many as were asked for, or as many as there were before, where these are more."""
    old = [weight_of(linear) for _, linear in encoder_linears(before.torch_network)]
    new = [weight_of(linear) for _, linear in encoder_linears(after.torch_network)]
    groups = _groups([weight == 0 for weight in old], config)
    if config.pattern is None:
        zeros = sum(int(group.sum(-1).clamp_min(zeros_in(config.sparsity, group.shape[-1])).sum()) for group in groups)
        return [Claim("sparsity", zeros / sum(weight.numel() for weight in old), sparsity(after.torch_network))]
    n, m = _numbers(config.pattern)
    zeros = sum(int(group.sum(-1).clamp_min(m - n).sum()) for group in groups)
    most = max(int(group.sum(-1).max()) for group in _groups([weight != 0 for weight in new], config))
    return [
        Claim("sparsity", zeros / sum(weight.numel() for weight in old), sparsity(after.torch_network)),
        Claim(f"most weights left of {m}", min(n, most), most),
    ]


@method(
    "magnitude",
    Magnitude,
    family="pruning",
    prove=prove,
    check=check,
    source="Han et al. 2015, arXiv:1506.02626, section 3",
    shrinks="nothing by itself",
    speeds_up="nothing by itself; 2:4 on GPUs that know it",
)
def prune_magnitude(checkpoint: Checkpoint, config: Magnitude, inputs: Inputs) -> Checkpoint:
    """Zero the smallest weights of the encoder's linear layers."""
    network = checkpoint.torch_network
    _refuse(network, config)
    weights = [weight_of(linear) for _, linear in encoder_linears(network)]
    if config.pattern is not None:
        masks = [pattern_mask(weight, *_numbers(config.pattern)) for weight in weights]
    elif config.scope == "global":
        every = torch.cat([weight.abs().flatten() for weight in weights])
        masks = list(torch.split(smallest(every, zeros_in(config.sparsity, every.numel())), [weight.numel() for weight in weights]))
    else:
        masks = [magnitude_mask(weight, sparsity=config.sparsity, rows=config.scope == "row") for weight in weights]
    for weight, mask in zip(weights, masks, strict=True):
        weight.masked_fill_(mask.view(weight.shape), 0)
    return checkpoint


def _groups(marks: Sequence[Bool[Tensor, "out in"]], config: Magnitude) -> list[Bool[Tensor, "... group"]]:
    """Weights that compete with each other, along the last axis."""
    if config.pattern is not None:
        return [mark.reshape(len(mark), -1, _numbers(config.pattern)[1]) for mark in marks]
    if config.scope == "global":
        return [torch.cat([mark.flatten() for mark in marks])]
    return list(marks) if config.scope == "row" else [mark.flatten() for mark in marks]


def _refuse(network: PreTrainedModel, config: Magnitude) -> None:
    if config.pattern is not None:
        m = _numbers(config.pattern)[1]
        for name, linear in encoder_linears(network):
            if weight_of(linear).shape[1] % m:
                raise InputError(f"pattern {config.pattern} needs rows of a multiple of {m} weights; {name} has {weight_of(linear).shape[1]}")
    elif 0 < config.sparsity < (there := sparsity(network)):
        raise InputError(f"sparsity {config.sparsity:g} is less than the {there:g} that the model has already; ask for more, or leave the step out")


def _numbers(pattern: str) -> tuple[int, int]:
    n, _, m = pattern.partition(":")
    return int(n), int(m)
