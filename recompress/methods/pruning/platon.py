"""PLATON: keep the weights without which the loss would change most, as far as a few noisy steps can tell, with more patience for those that are uncertain.

    I = |W * dL/dW|                  how much the loss changes, to first order, when the weight becomes zero
    Ib <- b1 Ib + (1 - b1) I         its running mean
    Ub <- b2 Ub + (1 - b2) |I - Ib|  how far it strays from that
    S = Ib * Ub                      after each optimizer step the smallest S become zero; their share follows recompress.methods.pruning.in_training

A weight that was dropped is trained on from zero and comes back when its score rises above that of another.
In the paper all matrices compete, b1 = 0.85, b2 = 0.95, pruning begins after a tenth of the steps and is over after half of them. Other than ``movement``,
which adds up signed slopes, it needs no long training for their noise to cancel out: sizes have no sign.
Source: Zhang et al. 2022 (PLATON), arXiv:2206.12562, section 3 and algorithm 1.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.pruning.in_training import WhileTraining, as_rows, beside, bounds, check, cubic, prove, refuse_less
from recompress.methods.pruning.scope import Scope, smallest_masks
from recompress.methods.registry import Inputs, method
from recompress.methods.training_step import train_in_step, was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.settings.base import Share

if TYPE_CHECKING:
    from transformers import TrainerCallback

MEAN, STRAY = "platon_importance", "platon_uncertainty"
"""Buffers beside each weight, Ib and Ub above. ``-inf`` is the importance of one that an earlier step pruned."""


class Platon(WhileTraining):
    """How the network is trained, and how its zeros become more."""

    scope: Scope = "global"
    """Among which weights the least important are looked for: all, those of each matrix, or those of each row (the weights of one output)."""
    begin: Share = 0.1
    """Share of all steps after which pruning begins; until then importance is only watched."""
    every: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Steps after which zeros are chosen anew; importance is watched at each step."""
    memory: Share = 0.85
    """b1 above: how much of its mean importance keeps from step to step."""
    uncertainty_memory: Share = 0.95
    """b2 above: the same for the uncertainty."""


def watch(mean: Float[Tensor, "out in"], stray: Float[Tensor, "out in"], importance: Float[Tensor, "out in"], config: Platon) -> None:
    """Both running means, in place, of one more step's ``importance``."""
    mean.mul_(config.memory).add_(importance, alpha=1 - config.memory)
    away = torch.where(mean.isinf(), 0, (importance - mean).abs())
    stray.mul_(config.uncertainty_memory).add_(away, alpha=1 - config.uncertainty_memory)


def score(mean: Float[Tensor, "out in"], stray: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """S above."""
    return torch.where(mean.isinf(), mean, mean * stray)


@method(
    "platon",
    Platon,
    family="pruning",
    prove=prove,
    check=check,
    source="Zhang et al. 2022, arXiv:2206.12562, algorithm 1",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="nothing by itself",
)
def prune_by_sensitivity(checkpoint: Checkpoint, config: Platon, inputs: Inputs) -> Checkpoint:
    """Train, and zero the weights of the encoder's linear layers on which the loss depends least."""
    start = refuse_less(checkpoint, config.sparsity, "platon")
    network, pruned = checkpoint.torch_network, was_pruned(checkpoint)
    linears = dict(encoder_linears(network))
    means = {name: torch.zeros_like(linear.weight).masked_fill_((linear.weight == 0) & pruned, -math.inf) for name, linear in linears.items()}
    strays = {name: torch.zeros_like(linear.weight) for name, linear in linears.items()}
    with beside(network, MEAN, means), beside(network, STRAY, strays):
        return train_in_step(
            checkpoint,
            config,
            inputs,
            "platon",
            callbacks=[_watcher(network, config, start)],
            hold=False,  # the watcher holds zeros itself
            counts_from=config.end,
        )


def _watcher(network: Any, config: Platon, start: float) -> TrainerCallback:
    """Watches importance before each step of the optimizer, and behind it zeroes what counts least. The zeros are the mask."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.linears = [linear for _, linear in encoder_linears(network)]
            self.zeros: list[Tensor] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            is_masked = state.global_step >= max(1, bounds(config, state)[0])
            self.zeros = []
            for linear in self.linears:
                weight, gradient = linear.weight.detach(), linear.weight.grad
                watch(getattr(linear, MEAN), getattr(linear, STRAY), (weight * gradient).abs(), config)
                self.zeros.append((weight == 0) & is_masked)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (first, last), step = bounds(config, state), state.global_step + 1
            zeros = [as_rows(linear, mark) for linear, mark in zip(self.linears, self.zeros, strict=True)]
            if step >= first and ((step - first) % config.every == 0 or step == last):
                scores = [as_rows(linear, score(getattr(linear, MEAN), getattr(linear, STRAY))) for linear in self.linears]
                zeros = smallest_masks(scores, cubic(step, first, last, start, config.sparsity), config.scope)
            for linear, mark in zip(self.linears, zeros, strict=True):
                weight_of(linear).masked_fill_(mark | as_rows(linear, getattr(linear, MEAN).isinf()), 0)

    return Watcher()
