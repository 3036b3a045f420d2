"""What pruning methods share that choose among the weights of one output: settings, the choice, refusals, and the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_serializer
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.registry import Claim
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.settings.base import Settings, Share, as_before

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pattern = Annotated[str, Field(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$", json_schema_extra={"in_words": "two whole numbers, as in '2:4'"})]

CHUNK = 1 << 16
"""Weights that are sorted at once."""
LESS = 1e-3
"""By this share of it at least the error of a method lies below that of the simpler one that it claims to beat: what is merely equal does not."""


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
    levels: Literal["uniform", "owl"] = "uniform"
    """The same sparsity in all layers, or less in those whose weights have more outliers (OWL), and ``sparsity`` in all of them together."""
    outlier: Annotated[float, Field(gt=1, le=100)] = 5.0
    """With ``levels: owl``: a weight is an outlier whose size times input norm is above so many times the mean of its layer."""
    spread: Annotated[float, Field(gt=0, le=0.5)] = 0.08
    """With ``levels: owl``: the farthest that the sparsity of a layer lies from ``sparsity``."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("levels", "outlier", "spread"))


def check_sparsity(share: float) -> None:
    """Raises ``InputError`` for a share of zeros that is none: a step which changes nothing is no step."""
    if share == 0:
        raise InputError("sparsity 0 makes no zeros; ask for more than 0, or leave the step out")


def check(config: Amount) -> None:
    """Raises ``InputError`` for no zeros at all, for a pattern that keeps everything, or that says something else than the sparsity."""
    if config.pattern is None:
        check_sparsity(config.sparsity)
        return
    n, m = numbers(config.pattern)
    if n >= m:
        raise InputError(f"pattern {config.pattern} keeps {n} of {m} weights; n is less than m, as in 2:4")
    if "sparsity" in config.model_fields_set and abs(config.sparsity - (1 - n / m)) > 1e-9:
        raise InputError(f"sparsity {config.sparsity:g} contradicts pattern {config.pattern}, which zeroes {1 - n / m:g}; leave sparsity out")


def check_levels(config: OneShot) -> None:
    """Raises ``InputError`` for what ``check`` refuses, and for levels that a pattern would contradict, that no layer can have, or that nobody asked for."""
    check(config)
    if config.levels == "uniform":
        if said := sorted({"outlier", "spread"} & config.model_fields_set):
            raise InputError(f"{said[0]} {getattr(config, said[0]):g} says how levels differ, and levels are uniform; say levels: owl, or leave it out")
        return
    if config.pattern is not None:
        raise InputError(f"pattern {config.pattern} zeroes as much in each layer, and levels: owl does not; leave one of them out")
    if config.sparsity - config.spread < 0 or config.sparsity + config.spread >= 1:
        most = min(config.sparsity, 1 - config.sparsity)
        raise InputError(f"sparsity {config.sparsity:g} with spread {config.spread:g} asks a layer for less than 0 or for all; lower spread below {most:g}")


ONE_SHOT: dict[str, Any] = {
    "family": "pruning",
    "check": check_levels,
    "needs": ("calibration",),
    "benchmarks": ALL_BENCHMARKS,
    "architectures": ALL_ARCHITECTURES,
    "shrinks": "nothing by itself",
    "speeds_up": "nothing by itself; 2:4 on GPUs that know it",
}
"""What the registry is told of methods that look at text once and zero weights where they stand."""


def smallest_in_rows(scores: Float[Tensor, "out in"], sparsity: float, pattern: str | None) -> Bool[Tensor, "out in"]:
    """True at the smallest scores of each row, or of each m in a row; counts are rounded down, and of equal scores the first goes."""
    n, m = numbers(pattern) if pattern else (0, scores.shape[1])
    count = m - n if pattern else zeros_in(sparsity, m)
    grouped = scores.reshape(len(scores), -1, m)
    order = grouped.argsort(dim=-1, stable=True)
    return torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, order[..., :count], True).flatten(1)


def smallest_of_rows(scores: Float[Tensor, "out in"], counts: Int[Tensor, " out"]) -> Bool[Tensor, "out in"]:
    """True at the ``counts[o]`` smallest scores of row ``o``; of equal scores the first goes."""
    order = scores.argsort(dim=-1, stable=True)
    gone = torch.arange(scores.shape[1], device=scores.device) < counts.to(scores.device)[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, gone)


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
    if config.sparsity < there:
        raise InputError(f"{name}: sparsity {config.sparsity:g} is less than the {there:g} that the model has already; ask for more, or leave the step out")


def prove_rows(before: Checkpoint, after: Checkpoint, config: Amount, zeros: Mapping[str, Int[Tensor, " out"]] | None = None) -> list[Claim]:
    """The share of zeros: in each row, or in each m of a row, as many as were asked for, or as were there before, where these are more. ``zeros`` are those of
    each row of each matrix, where these are not the same share of all."""
    asked = measured = total = most = 0
    n, m = numbers(config.pattern) if config.pattern else (0, 0)
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True)
    for (name, old), (_, new) in pairs:
        was, now = (_grouped(weight_of(linear) == 0, m) for linear in (old, new))
        there = was.sum(-1)
        least = torch.full_like(there, m - n if m else zeros_in(config.sparsity, was.shape[-1])) if zeros is None else zeros[name][:, None]
        asked += int(torch.maximum(there, least).sum())
        measured += int(now.sum())
        total += was.numel()
        most = max(most, int((~now).sum(-1).max()))
    claims = [Claim("sparsity", asked / total, measured / total)]
    return [*claims, Claim(f"most weights left of {m}", min(n, most), most)] if m else claims


def _grouped(marks: Bool[Tensor, "out in"], m: int) -> Bool[Tensor, "out groups group"]:
    return marks.reshape(len(marks), -1, m or marks.shape[1])
