"""Dynamic sparse training: a network that is sparse all the time and looks for better places, dropping its smallest weights and growing as many others.

    drop    the k smallest |W| of each matrix            k = f_t * weights that are not zero,  f_t = drop / 2 * (1 + cos(pi * t / t_end))
    grow    set: k places at random, with small random weights        rigl: the k places of the largest |dL/dW|, from zero
    density of matrix l: the same everywhere, or (Erdős–Rényi) proportional to (out + in) / (out * in), at most 1

A place that was just dropped may grow again, and then keeps its weight. What grows takes part in the very step whose gradient found it; dropped weights lose
their optimizer state.
Source: Mocanu et al. 2018 (SET), arXiv:1707.04780, algorithm 1; Evci et al. 2020 (RigL), arXiv:1911.11134, section 3 and algorithm 1.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.pruning.in_training import ONE_IN_A_MILLION, beside, refuse_less, spaced
from recompress.methods.pruning.mask import smallest, sparsity
from recompress.methods.pruning.scope import Distribution, zeros_of
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.training_probe import not_chance
from recompress.methods.training_step import train_in_step
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import weight_of
from recompress.settings.base import Share
from recompress.training.settings import Schedule

if TYPE_CHECKING:
    from transformers import TrainerCallback

ALIVE = "sparse_alive"
"""The buffer beside each weight: true where it takes part."""
SMALL = 0.1
"""Deviation of a new random weight, as a share of the deviation of those that are there."""


class DynamicSparse(Schedule):
    """How the network is trained, and how its zeros move."""

    kind: Literal["rigl", "set"] = "rigl"
    """Where new weights grow: at the largest gradients (``rigl``), or anywhere (``set``)."""
    sparsity: Share = 0.5
    """Share of the weights of the encoder's linear layers that are zero, from the first step to the last."""
    distribution: Distribution = "erdos_renyi"
    """How the zeros are spread over the matrices: the same share of each, or a smaller share of small and narrow ones."""
    start: Literal["magnitude", "random"] = "magnitude"
    """Which weights are zero at first: the smallest of each matrix, or any."""
    drop: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the weights of each matrix that are dropped and grown at the first update; it falls to 0 along a cosine."""
    updates: Annotated[int, Field(ge=1, le=100_000)] = 50
    """How often weights are dropped and grown, spaced evenly; at each step, where there are fewer."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of all steps after which places stay as they are."""


def dropped_share(step: int, end: int, drop: float) -> float:
    """f_t at the head of this file."""
    return drop / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0


def rewire(
    weight: Float[Tensor, "rows columns"], alive: Bool[Tensor, "rows columns"], wish: Float[Tensor, "rows columns"], count: int
) -> Bool[Tensor, "rows columns"]:
    """What is alive after the ``count`` smallest weights that are alive were dropped, and as many grew where ``wish`` is largest, outside of those kept."""
    remaining = alive & ~smallest(torch.where(alive, weight.abs(), torch.inf).flatten(), count).view_as(alive)
    return remaining | smallest(torch.where(remaining, torch.inf, -wish).flatten(), count).view_as(alive)


def prove(before: Checkpoint, after: Checkpoint, config: DynamicSparse, inputs: Inputs) -> list[Claim]:
    """The share of zeros in all and in each matrix, that weights moved, and that the network still knows something."""
    pairs = list(zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=True))
    shapes = [(weight_of(old).shape[0], weight_of(old).shape[1]) for (_, old), _ in pairs]
    asked = zeros_of(shapes, config.sparsity, config.distribution)
    zero_counts = [int((new.weight == 0).sum()) for _, (_, new) in pairs]
    furthest = max(abs(zeros - wanted) / new.weight.numel() for zeros, wanted, (_, (_, new)) in zip(zero_counts, asked, pairs, strict=True))
    total = sum(rows * columns for rows, columns in shapes)
    return [
        Claim("sparsity", sum(asked) / total, sparsity(after.torch_network), ONE_IN_A_MILLION),
        Claim("largest distance of a matrix from its own share", 0, furthest, 1e-4),
        Claim("weights moved", 1, float(any(not torch.equal(old.weight, new.weight) for (_, old), (_, new) in pairs))),
        not_chance(before, after, inputs),
    ]


@method(
    "dynamic_sparse",
    DynamicSparse,
    family="pruning",
    prove=prove,
    source="Evci et al. 2020, arXiv:1911.11134, algorithm 1; Mocanu et al. 2018, arXiv:1707.04780",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="nothing by itself",
)
def train_sparse(checkpoint: Checkpoint, config: DynamicSparse, inputs: Inputs) -> Checkpoint:
    """Train with a constant share of zeros in the encoder's linear layers, which move to where they cost least."""
    refuse_less(checkpoint, config.sparsity, "dynamic_sparse")
    network = checkpoint.torch_network
    linears = dict(encoder_linears(network))
    counts = zeros_of([(weight_of(linear).shape[0], weight_of(linear).shape[1]) for linear in linears.values()], config.sparsity, config.distribution)
    alive = {}
    for i, ((name, linear), count) in enumerate(zip(linears.items(), counts, strict=True)):
        worth = linear.weight.detach().abs() if config.start == "magnitude" else _random(linear.weight, inputs.seed, 0, i).abs() * (linear.weight != 0)
        alive[name] = ~smallest(worth.flatten(), count).view_as(worth)
        linear.weight.data.masked_fill_(~alive[name], 0)
    with beside(network, ALIVE, alive):
        return train_in_step(
            checkpoint,
            config,
            inputs,
            "dynamic_sparse",
            callbacks=[_rewirer(network, config, inputs.seed)],
            hold=False,  # zeros may grow
        )


def _rewirer(network: Any, config: DynamicSparse, seed: int) -> TrainerCallback:
    """Holds all that is not alive at zero, and moves what is alive."""
    from transformers import TrainerCallback

    from recompress.training.callbacks import step_at

    class Rewirer(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.linears = [linear for _, linear in encoder_linears(network)]

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            end, step = step_at(config.until, state.max_steps), state.global_step + 1
            share = dropped_share(state.global_step, end, config.drop) if step in spaced(1, end, config.updates) else 0.0  # the first step moves nothing
            for i, linear in enumerate(self.linears):
                alive, weight = getattr(linear, ALIVE), linear.weight.data
                count = int(share * int(alive.sum()))
                if count:
                    draw = _random(weight, seed, step, i)
                    now = rewire(weight, alive, linear.weight.grad.abs() if config.kind == "rigl" else draw.abs(), count)
                    grown = now & ~alive
                    if config.kind == "set":
                        weight[grown] = SMALL * weight[alive].std(correction=0) * draw[grown]
                    _forget(optimizer, linear.weight, now != alive)
                    alive.copy_(now)
                    weight.masked_fill_(~alive, 0)
                linear.weight.grad.mul_(alive)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for linear in self.linears:
                linear.weight.data.masked_fill_(~getattr(linear, ALIVE), 0)

    return Rewirer()


def _forget(optimizer: Any, weight: Tensor, places: Bool[Tensor, "rows columns"]) -> None:
    """Set the optimizer's moments to 0 where weights were dropped or grown."""
    for moment in optimizer.state.get(weight, {}).values():
        if isinstance(moment, Tensor) and moment.shape == weight.shape:
            moment.masked_fill_(places, 0)


def _random(like: Tensor, *numbers: int) -> Tensor:
    """Normal numbers that follow from ``numbers`` alone, so that a training that is resumed draws the same."""
    drawn = np.random.default_rng([number % 2**32 for number in numbers]).standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(like.device)
