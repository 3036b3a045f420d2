"""Movement: keep the weights that training moves away from zero, and drop those that it moves towards it, whatever their size.

    forward    W' = W * M,  M = top-v(S)            v = 1 - s_t, the cubic schedule of recompress.methods.pruning.in_training
    slope      G = dL/dS = dL/dW' * W               straight through M, as if it were S
    scores     S <- S - a / (sqrt(q) + 1e-8)        Adam's running means a of G (0.9) and q of G^2 (0.999), both corrected for their beginning at 0
    weights    W <- optimizer step on dL/dW' * M

    start      S = prior * |W| / mean |W|           mean over all encoder layers; the paper's S starts at 0

S grows where a weight and its descent have the same sign. Its own learning rate would scale all scores alike and change no choice, so there is none. A weight that was dropped keeps its value beside the network and comes back when its score rises above that of another.

What the paper's setting needs: a base model that is not fine-tuned yet, so that weights have a way to go, and ten thousands of steps at a small learning
rate. Over some hundred steps from a fine-tuned model the sum of signed slopes is mostly noise, and the noise is largest where a weight counts most: summed up
as they are (``optimizer: sgd``), the most important weights go first: of those on which the loss depends most, a twentieth, 45 % were among the lowest fifth
of the scores after 24 batches of pydocs (20 % would be chance). Adam, with which the authors' own code trains its scores too, divides by the size of the
noise, so that what is only noise chooses at random (20 %) and not the wrong way round; but at random is no better than nothing: from S = 0, 80 % zeros after 292
steps leave a model below a guess. So S starts with the sizes of the weights, in Adam's steps: a weight of mean size counts as much as ``prior`` steps of clear
movement. Some hundred steps can hardly overrule it, and choose about as ``gradual`` does; ten thousands choose by movement, as in the paper. ``prior: 0`` is the
paper's start. ``platon`` adds up sizes of slopes, without signs that noise could turn. ``python -m studies.pruning_in_training`` counts this and compares the two.
Source: Sanh, Wolf and Rush 2020, arXiv:2005.07683, eq. 2 and 3 and section 4 (hard movement pruning with the cubic schedule).
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.pruning.in_training import WhileTraining, as_rows, beside, bounds, check, cubic, prove, refuse_less
from recompress.methods.pruning.scope import Scope, smallest_masks
from recompress.methods.registry import Inputs, method
from recompress.methods.training_step import train_in_step, was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES, Linear, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of

if TYPE_CHECKING:
    from transformers import TrainerCallback

DENSE, SCORES, SLOPES, SQUARES = "movement_dense", "movement_scores", "movement_slopes", "movement_squares"
"""Buffers beside each weight: what it is without its mask, its score (``-inf`` where an earlier step pruned), and the two running means of the score's Adam."""
KEEP, KEEP_SQUARE, TINY = 0.9, 0.999, 1e-8
"""Adam's usual constants."""


class Movement(WhileTraining):
    """How the network is trained, and how its zeros become more."""

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps after which pruning begins; until then scores are only collected."""
    every: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Steps after which the mask is chosen anew; scores are learned at each step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """How scores follow their slopes: each divided by its usual size (``adam``), or summed up as they are (``sgd``), which needs a long training."""
    prior: Annotated[float, Field(ge=0, le=1_000_000)] = 100.0
    """Steps of clear movement that a weight of mean size is worth at the start, with ``adam``; ``sgd``, whose sums have no such unit, starts at 0."""


def first_scores(weights: Mapping[str, Float[Tensor, "out in"]], prior: float) -> dict[str, Float[Tensor, "out in"]]:
    """The sizes of weights, one of mean size over all matrices worth ``prior``."""
    mean = sum(float(weight.abs().sum(dtype=torch.float64)) for weight in weights.values()) / sum(weight.numel() for weight in weights.values())
    return {name: weight.abs() * (prior / (mean or 1.0)) for name, weight in weights.items()}


def learn(scores: Float[Tensor, "out in"], slope: Float[Tensor, "out in"]) -> None:
    """A plain step of the scores, in place."""
    scores.sub_(slope)


def learn_by_noise(
    scores: Float[Tensor, "out in"], mean: Float[Tensor, "out in"], square: Float[Tensor, "out in"], slope: Float[Tensor, "out in"], step: int
) -> None:
    """Adam's step of the scores and its running means, in place. ``step`` counts from 1."""
    mean.mul_(KEEP).add_(slope, alpha=1 - KEEP)
    square.mul_(KEEP_SQUARE).addcmul_(slope, slope, value=1 - KEEP_SQUARE)
    scores.addcdiv_(mean / (1 - KEEP**step), (square / (1 - KEEP_SQUARE**step)).sqrt_().add_(TINY), value=-1)


def mask_again(linears: Iterable[Linear], sparsity: float, scope: Scope) -> None:
    """Let each weight be what stands beside it, but zero where scores are lowest."""
    layers = list(linears)
    seen = [as_rows(linear, getattr(linear, SCORES)) for linear in layers]
    for linear, mask in zip(layers, smallest_masks(seen, sparsity, scope), strict=True):
        weight_of(linear).copy_(as_rows(linear, getattr(linear, DENSE)).masked_fill(mask, 0))


@method(
    "movement",
    Movement,
    family="pruning",
    prove=prove,
    check=check,
    source="Sanh, Wolf and Rush 2020, arXiv:2005.07683, eq. 2 and 3",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="nothing by itself",
)
def prune_by_movement(checkpoint: Checkpoint, config: Movement, inputs: Inputs) -> Checkpoint:
    """Train, and zero the weights of the encoder's linear layers that training moves towards zero."""
    start, pruned = refuse_less(checkpoint, config.sparsity, "movement"), was_pruned(checkpoint)
    network = checkpoint.torch_network
    dense = {name: linear.weight.detach().clone() for name, linear in encoder_linears(network)}
    zeros = {name: torch.zeros_like(weight) for name, weight in dense.items()}
    scores = first_scores(dense, config.prior) if config.optimizer == "adam" else zeros
    buffers = {DENSE: dense, SCORES: {name: score.masked_fill((dense[name] == 0) & pruned, -math.inf) for name, score in scores.items()}}
    if config.optimizer == "adam":
        buffers |= {SLOPES: zeros, SQUARES: {name: zero.clone() for name, zero in zeros.items()}}
    with ExitStack() as stack:
        for buffer, tensors in buffers.items():
            stack.enter_context(beside(network, buffer, tensors))
        return train_in_step(
            checkpoint,
            config,
            inputs,
            "movement",
            callbacks=[_mover(network, config, start)],
            hold=False,  # the mover holds zeros itself
            counts_from=config.end,
        )


def _mover(network: Any, config: Movement, start: float) -> TrainerCallback:
    """Between two steps weights are masked; for the optimizer's step, and only then, they are whole."""
    from transformers import TrainerCallback

    class Mover(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.linears = [linear for _, linear in encoder_linears(network)]
            self.masks: list[Tensor] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.masks = []
            for linear in self.linears:
                dense, scores, gradient = getattr(linear, DENSE), getattr(linear, SCORES), linear.weight.grad
                mask = (linear.weight.detach() == dense) & ~scores.isinf()
                if config.optimizer == "sgd":
                    learn(scores, gradient * dense)
                else:
                    learn_by_noise(scores, getattr(linear, SLOPES), getattr(linear, SQUARES), gradient * dense, state.global_step + 1)
                gradient.mul_(mask)
                linear.weight.data.copy_(dense)
                self.masks.append(mask)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for linear, mask in zip(self.linears, self.masks, strict=True):
                getattr(linear, DENSE).copy_(linear.weight.data)
                linear.weight.data.mul_(mask)
            (first, last), step = bounds(config, state), state.global_step + 1
            if step >= first and ((step - first) % config.every == 0 or step == last):
                mask_again(self.linears, cubic(step, first, last, start, config.sparsity), config.scope)

    return Mover()
