"""What pruning methods share that choose among the weights of one output: settings, the choice, refusals, and the proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.registry import Claim
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings, Share

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pattern = Annotated[str, Field(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$")]

CHUNK = 1 << 16
"""Weights that are sorted at once."""


class Amount(Settings):
    """How many weights become zero."""

    sparsity: Share = 0.5
    """Share of the weights set to zero."""
    pattern: Pattern | None = None
    """``n:m``: of each m weights in a row, n stay; 2:4 is what some GPUs can use. It stands in the place of ``sparsity``."""


class OneShot(Amount):
    """How many weights become zero, and what they are judged on."""

    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


def check(config: Amount) -> None:
    """Raises ``InputError`` for a pattern that keeps everything, or that says something else than the sparsity."""
    if config.pattern is None:
        return
    n, m = numbers(config.pattern)
    if n >= m:
        raise InputError(f"pattern {config.pattern} keeps {n} of {m} weights; n is less than m, as in 2:4")
    if "sparsity" in config.model_fields_set and abs(config.sparsity - (1 - n / m)) > 1e-9:
        raise InputError(f"sparsity {config.sparsity:g} contradicts pattern {config.pattern}, which zeroes {1 - n / m:g}; leave sparsity out")


def smallest_in_rows(scores: Float[Tensor, "out in"], sparsity: float, pattern: str | None) -> Bool[Tensor, "out in"]:
    """True at the smallest scores of each row, or of each m in a row; counts are rounded down, and of equal scores the first goes."""
    n, m = numbers(pattern) if pattern else (0, scores.shape[1])
    count = m - n if pattern else zeros_in(sparsity, m)
    grouped = scores.reshape(len(scores), -1, m)
    order = grouped.argsort(dim=-1, stable=True)
    return torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, order[..., :count], True).flatten(1)


def row_blocks(weight: Float[Tensor, "out in"]) -> Sequence[Float[Tensor, "some in"]]:
    """The matrix as views of some rows each: sorting takes several times what it sorts."""
    return torch.split(weight, max(1, CHUNK // weight.shape[1]))


def zeros_in(sparsity: float, count: int) -> int:
    """Whole weights in a share, rounded down."""
    return int(sparsity * count + 1e-9)


def numbers(pattern: str) -> tuple[int, int]:
    n, _, m = pattern.partition(":")
    return int(n), int(m)


def refuse(network: PreTrainedModel, config: Amount, name: str) -> None:
    """Raises ``InputError`` where rows do not divide into groups, or have more zeros already than were asked for."""
    linears = [(path, weight_of(linear)) for path, linear in encoder_linears(network)]
    if config.pattern is not None:
        m = numbers(config.pattern)[1]
        for path, weight in linears:
            if weight.shape[1] % m:
                raise InputError(f"pattern {config.pattern} needs rows of a multiple of {m} weights; {path} has {weight.shape[1]}")
        return
    there = sum(int((weight == 0).sum()) for _, weight in linears) / sum(weight.numel() for _, weight in linears)
    if 0 < config.sparsity < there:
        raise InputError(f"{name}: sparsity {config.sparsity:g} is less than the {there:g} that the model has already; ask for more, or leave the step out")


def prove_rows(before: Checkpoint, after: Checkpoint, config: Amount) -> list[Claim]:
    """The share of zeros: in each row, or in each m of a row, as many as were asked for, or as were there before, where these are more."""
    asked = measured = total = most = 0
    n, m = numbers(config.pattern) if config.pattern else (0, 0)
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    for (_, old), (_, new) in pairs:
        was, now = (_grouped(weight_of(linear) == 0, m) for linear in (old, new))
        least = m - n if m else zeros_in(config.sparsity, was.shape[-1])
        asked += int(was.sum(-1).clamp_min(least).sum())
        measured += int(now.sum())
        total += was.numel()
        most = max(most, int((~now).sum(-1).max()))
    claims = [Claim("sparsity", asked / total, measured / total)]
    return [*claims, Claim(f"most weights left of {m}", min(n, most), most)] if m else claims


def _grouped(marks: Bool[Tensor, "out in"], m: int) -> Bool[Tensor, "out groups group"]:
    return marks.reshape(len(marks), -1, m or marks.shape[1])
