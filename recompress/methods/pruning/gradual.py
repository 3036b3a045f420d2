"""Gradual: prune a little more every few steps of a training, much at first and little at last, so that the network makes up for each loss at once.

    zeros after step t: s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / (t_1 - t_0))^3, the smallest |W[o, i]|

A weight that has become zero stays so. After t_1 the network is trained on under its mask, and the best weights of that time are kept.
Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878, eq. 1 and section 3.
Zeros are stored like other numbers: alone, this method saves neither bytes nor time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.pruning.in_training import WhileTraining, check, prove, refuse_less
from recompress.methods.registry import Inputs, method
from recompress.methods.training_step import train_in_step, was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Gradual(WhileTraining):
    """How the network is trained, and how its zeros become more."""

    updates: Annotated[int, Field(ge=1, le=100_000)] = 100
    """How often weights become zero, spaced evenly; at each step, where there are fewer."""


@method(
    "gradual",
    Gradual,
    family="pruning",
    prove=prove,
    check=check,
    source="Zhu and Gupta 2017, arXiv:1710.01878, eq. 1",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    shrinks="nothing by itself",
)
def prune_gradually(checkpoint: Checkpoint, config: Gradual, inputs: Inputs) -> Checkpoint:
    """Train, and zero more and more of the smallest weights of the encoder's linear layers meanwhile."""
    start = refuse_less(checkpoint, config.sparsity, "gradual")
    return train_in_step(
        checkpoint,
        config,
        inputs,
        "gradual",
        callbacks=[_pruner(checkpoint.torch_network, config, start, was_pruned=was_pruned(checkpoint))],
        hold=False,  # the pruner holds all zeros itself
        counts_from=config.end,
    )


def _pruner(network: Any, config: Gradual, start: float, *, was_pruned: bool) -> TrainerCallback:
    """Zeros hold through each step, and become more after some. The zeros are the mask, once there is one."""
    import torch
    from transformers import TrainerCallback

    from recompress.methods.pruning.in_training import bounds, cubic, spaced
    from recompress.methods.pruning.scope import smallest_masks
    from recompress.models.architecture import encoder_linears
    from recompress.models.surgery import weight_of

    class Pruner(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.linears = [linear for _, linear in encoder_linears(network)]
            self.zeros: list[torch.Tensor] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            is_masked = was_pruned or state.global_step >= min(spaced(*bounds(config, state), config.updates))
            self.zeros = [linear.weight == 0 for linear in self.linears] if is_masked else []

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for linear, zeros in zip(self.linears, self.zeros, strict=False):
                linear.weight.data.masked_fill_(zeros, 0)
            (first, last), step = bounds(config, state), state.global_step + 1
            if step not in spaced(first, last, config.updates):
                return
            weights = [weight_of(linear) for linear in self.linears]
            asked = cubic(step, first, last, start, config.sparsity)
            for weight, mask in zip(weights, smallest_masks([weight.abs() for weight in weights], asked, config.scope), strict=True):
                weight.masked_fill_(mask, 0)

    return Pruner()
