"""Fine-tune further: train on the labels again, so that what a step cost is won back. What was pruned stays zero.

    loss = cross-entropy of the labels, or, for language modelling, of each next token in windows of running text

Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878 (training on under a fixed mask).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.training_probe import learned
from recompress.methods.training_step import prove_training, train_in_step
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import Checkpoint
from recompress.training.settings import Schedule


class Finetune(Schedule):
    """How long and how fast to train on."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training examples."""


def prove(before: Checkpoint, after: Checkpoint, config: Finetune, inputs: Inputs) -> list[Claim]:
    """What holds after any training, and that it learned."""
    return [*prove_training(before, after), learned(before, after, inputs)]


@method(
    "finetune",
    Finetune,
    family="training",
    prove=prove,
    source="Zhu and Gupta 2017, arXiv:1710.01878",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
)
def finetune(checkpoint: Checkpoint, config: Finetune, inputs: Inputs) -> Checkpoint:
    """Train on with the labels, or on running text; what was pruned stays zero."""
    return train_in_step(checkpoint, config, inputs, "finetune")
