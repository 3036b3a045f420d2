"""What methods share that prune while they train: settings, the schedule, what is kept beside a weight in training checkpoints, and the proof.

    s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / (t_1 - t_0))^3        for t_0 <= t <= t_1; s_i before, s_f behind

A training that is killed goes on with the same bytes, because all that a callback knows is the step and the network: a mask is where weights are zero, or a
buffer beside them, which training checkpoints hold and the finished model does not.
Source: Zhu and Gupta 2017, arXiv:1710.01878, eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from jaxtyping import Shaped
from pydantic import Field
from torch import Tensor, nn

from recompress.errors import InputError
from recompress.methods.pruning.mask import sparsity
from recompress.methods.pruning.scope import Scope, least_zeros
from recompress.methods.registry import Claim, Inputs
from recompress.methods.training_probe import not_chance
from recompress.methods.training_step import prove_training, was_pruned
from recompress.models.architecture import Linear, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.settings.base import Share
from recompress.training.settings import Schedule

ONE_IN_A_MILLION = 1e-6
"""Tolerance of a share of zeros: now and then a weight that is trained becomes zero by chance."""


class WhileTraining(Schedule):
    """How the network is trained, and how its zeros become more."""

    sparsity: Share = 0.5
    """Share of the weights of the encoder's linear layers that are zero at the end."""
    scope: Scope = "layer"
    """Among which weights the least important are looked for: all, those of each matrix, or those of each row (the weights of one output)."""
    begin: Share = 0.0
    """Share of all steps after which pruning begins."""
    end: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of all steps after which nothing more is pruned; from here on the weights that are best on dev may be the result,
    and epochs count for ``patience``."""


def check(config: WhileTraining) -> None:
    """Raises ``InputError`` when pruning would end before it begins."""
    if config.begin >= config.end:
        raise InputError(f"begin is less than end, got {config.begin:g} and {config.end:g}")


def refuse_less(checkpoint: Checkpoint, asked: float, name: str) -> float:
    """The share of zeros that steps before this one made. Raises ``InputError`` when it is more than the share that is asked for."""
    there = sparsity(checkpoint.torch_network) if was_pruned(checkpoint) else 0.0
    if there > asked:
        raise InputError(f"{name}: sparsity {asked:g} is less than the {there:g} that the model has already; ask for more, or train on with finetune")
    return there


def bounds(config: WhileTraining, state: Any) -> tuple[int, int]:
    """The steps after which pruning begins and ends; ``state`` is the Trainer's."""
    from recompress.training.callbacks import step_at

    return step_at(config.begin, state.max_steps), step_at(config.end, state.max_steps)


def cubic(step: int, first: int, last: int, start: float, target: float) -> float:
    """The formula at the head of this file."""
    if step >= last:
        return target
    return target + (start - target) * (1 - max(step - first, 0) / (last - first)) ** 3


def spaced(first: int, last: int, number: int) -> frozenset[int]:
    """``number`` steps (or all, where there are fewer) evenly between ``first`` (not among them) and ``last`` (always one of them)."""
    return frozenset({last, *(first + -(-i * (last - first) // number) for i in range(1, number + 1))})


def prove(before: Checkpoint, after: Checkpoint, config: WhileTraining, inputs: Inputs) -> list[Claim]:
    """As many zeros as were asked for in each group of competitors, or as steps before made, where these are more; what holds after any training; and
    that the network still knows something."""
    pruned = was_pruned(before)
    zeros = [(weight_of(linear) == 0) & pruned for _, linear in encoder_linears(before.torch_network)]
    asked = least_zeros(zeros, config.sparsity, config.scope) / sum(mark.numel() for mark in zeros)
    return [Claim("sparsity", asked, sparsity(after.torch_network), ONE_IN_A_MILLION), *prove_training(before, after), not_chance(before, after, inputs)]


def as_rows(linear: Linear, stored: Tensor) -> Shaped[Tensor, "out in"]:
    """A tensor that is stored like a linear layer's weight, as ``[out, in]``."""
    return stored if isinstance(linear, nn.Linear) else stored.T


@contextmanager
def beside(network: Any, name: str, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block runs, each linear layer has its tensor (by the layer's name) as the buffer ``name``, which training checkpoints keep."""
    linears = [(path, linear) for path, linear in encoder_linears(network) if path in tensors]
    for path, linear in linears:
        linear.register_buffer(name, tensors[path])
    try:
        yield
    finally:
        for _, linear in linears:
            delattr(linear, name)
