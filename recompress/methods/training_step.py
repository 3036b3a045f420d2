"""The training inside a step of a recipe: on the step's inputs, in its folder, under its name; and what must be measurable after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.methods.registry import Claim, Inputs
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import distinct_tensors
from recompress.training.run import train
from recompress.training.settings import Schedule


def train_in_step(
    checkpoint: Checkpoint, config: Schedule, inputs: Inputs, method: str, *, depends_on: Mapping[str, Any] | None = None, **how: Any
) -> Checkpoint:
    """``train`` with what the step was given. ``depends_on`` is what else the result depends on; ``how`` are further arguments of ``train``."""
    place, label = inputs.workdir / "training", inputs.label or method
    depends_on = {"method": method, **(depends_on or {})}
    return train(checkpoint, inputs.train, inputs.dev, config, inputs.seed, place, curve=inputs.curve, label=label, depends_on=depends_on, **how)


def prove_training(before: Checkpoint, after: Checkpoint) -> list[Claim]:
    """Weights moved, the shape is what it was, and what was pruned is still zero: claims on the number of parameters, on whether any weight moved, and on the zeros of the encoder's linear layers."""
    was, now = before.torch_network.state_dict(), after.torch_network.state_dict()
    moved = any(name not in now or not tensor.equal(now[name]) for name, tensor in was.items())
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=False)
    pruned = [(old.weight == 0, new.weight) for (_, old), (_, new) in pairs if old.weight.shape == new.weight.shape]
    zeros = sum(int((linear.weight == 0).sum()) for _, linear in encoder_linears(before.torch_network))
    parameters_before, parameters = (sum(tensor.numel() for tensor in distinct_tensors(which.torch_network).values()) for which in (before, after))
    return [
        Claim("parameters", parameters_before, parameters),
        Claim("weights moved", 1, float(moved)),
        Claim("zeros that stayed zero", zeros, sum(int((weight[mask] == 0).sum()) for mask, weight in pruned)),
    ]
