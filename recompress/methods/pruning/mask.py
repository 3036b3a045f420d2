"""Masks by score, and how much of a network is zero. A pruned weight needs no mask of its own: it is a weight that is exactly zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from recompress.models.architecture import encoder_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def smallest(scores: Float[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """True at exactly ``count`` of the smallest scores; of equal ones the first."""
    chosen = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if count == 0:
        return chosen
    limit = scores.kthvalue(count).values
    chosen |= scores < limit
    equal = (scores == limit).nonzero().flatten()
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen


def sparsity(network: PreTrainedModel) -> float:
    """Share of exact zeros among the weights of the encoder's linear layers."""
    zeros = total = 0
    for _, linear in encoder_linears(network):
        zeros += int((linear.weight == 0).sum())
        total += linear.weight.numel()
    return zeros / total
