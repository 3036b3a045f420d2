"""Movement: keep the weights that training moves away from zero, and drop those that it moves towards it, whatever their size.

    forward    W' = W * M,  M = top-v(S)            v = 1 - s_t, the cubic schedule of recompress.methods.pruning.in_training
    scores     S <- S - dL/dS = S - dL/dW' * W      straight through M, as if it were S
    weights    W <- optimizer step on dL/dW' * M

S starts at 0 and grows where a weight and its descent have the same sign. Its own learning rate would scale all scores alike and change no choice, so there
is none. A weight that was dropped keeps its value beside the network and comes back when its score rises above that of another.
Source: Sanh, Wolf and Rush 2020, arXiv:2005.07683, eq. 2 and 3 and section 4 (hard movement pruning with the cubic schedule).
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.pruning.in_training import WhileTraining, beside, check, cubic, prove, refuse_less
from recompress.methods.pruning.scope import Scope, smallest_masks
from recompress.methods.registry import Inputs, method
from recompress.methods.training_step import train_in_step
from recompress.models.architecture import SIX, Linear, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of

if TYPE_CHECKING:
    from transformers import TrainerCallback

DENSE, SCORES = "movement_dense", "movement_scores"
"""Buffers beside each weight: what it is without its mask, and its score. ``-inf`` is the score of one that was zero before."""


class Movement(WhileTraining):
    """How the network is trained, and how its zeros become more."""

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps after which pruning begins; until then scores are only collected."""
    every: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Steps after which the mask is chosen anew; scores are learned at each step."""


def learn(scores: Float[Tensor, "out in"], dense: Float[Tensor, "out in"], gradient: Float[Tensor, "out in"]) -> None:
    """The scores' step, in place; ``gradient`` is dL/dW'."""
    scores.addcmul_(gradient, dense, value=-1)


def mask_again(linears: Iterable[Linear], sparsity: float, scope: Scope) -> None:
    """Let each weight be what stands beside it, but zero where scores are lowest."""
    layers = list(linears)
    seen = [_as_rows(linear, getattr(linear, SCORES)) for linear in layers]
    for linear, mask in zip(layers, smallest_masks(seen, sparsity, scope), strict=True):
        weight_of(linear).copy_(_as_rows(linear, getattr(linear, DENSE)).masked_fill(mask, 0))


@method(
    "movement",
    Movement,
    family="pruning",
    prove=prove,
    check=check,
    source="Sanh, Wolf and Rush 2020, arXiv:2005.07683, eq. 2 and 3",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=SIX,
    shrinks="nothing by itself",
)
def prune_by_movement(checkpoint: Checkpoint, config: Movement, inputs: Inputs) -> Checkpoint:
    """Train, and zero the weights of the encoder's linear layers that training moves towards zero."""
    start = refuse_less(checkpoint, config.sparsity, "movement")
    network = checkpoint.torch_network
    dense = {name: linear.weight.detach().clone() for name, linear in encoder_linears(network)}
    scores = {name: torch.zeros_like(weight).masked_fill_(weight == 0, -math.inf) for name, weight in dense.items()}
    with beside(network, DENSE, dense), beside(network, SCORES, scores):
        return train_in_step(
            checkpoint,
            config,
            inputs,
            "movement",
            callbacks=[_mover(network, config, start)],
            counts_from=config.end,
        )


def _mover(network: Any, config: Movement, start: float) -> TrainerCallback:
    """Between two steps weights are masked; for the optimizer's step, and only then, they are whole."""
    from transformers import TrainerCallback

    from recompress.training.callbacks import step_at

    class Mover(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.linears = [linear for _, linear in encoder_linears(network)]
            self.masks: list[Tensor] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.masks = []
            for linear in self.linears:
                dense, gradient = getattr(linear, DENSE), linear.weight.grad
                mask = linear.weight.detach() == dense
                learn(getattr(linear, SCORES), dense, gradient)
                gradient.mul_(mask)
                linear.weight.data.copy_(dense)
                self.masks.append(mask)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for linear, mask in zip(self.linears, self.masks, strict=True):
                getattr(linear, DENSE).copy_(linear.weight.data)
                linear.weight.data.mul_(mask)
            first, last, step = step_at(config.begin, state.max_steps), step_at(config.end, state.max_steps), state.global_step + 1
            if step >= first and ((step - first) % config.every == 0 or step == last):
                mask_again(self.linears, cubic(step, first, last, start, config.sparsity), config.scope)

    return Mover()


def _as_rows(linear: Linear, stored: Tensor) -> Float[Tensor, "out in"]:
    """A tensor that is stored like a linear layer's weight, as ``[out, in]``."""
    return stored if isinstance(linear, torch.nn.Linear) else stored.T
