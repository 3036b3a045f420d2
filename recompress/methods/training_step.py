"""The training inside a step of a recipe: on the step's inputs, in its folder, under its name; and what must be measurable after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.methods.registry import Claim, Inputs, all_methods
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import distinct_tensors
from recompress.training.run import train
from recompress.training.settings import Schedule


def was_pruned(checkpoint: Checkpoint) -> bool:
    """Whether one of the model's steps set single weights to zero. Zeros in other models are no step's work, and train like other weights."""
    known = all_methods()
    return any(known[step].family == "pruning" and "sparsity" in known[step].config.model_fields for step in checkpoint.info.steps if step in known)


def train_in_step(
    checkpoint: Checkpoint, config: Schedule, inputs: Inputs, method: str, *, depends_on: Mapping[str, Any] | None = None, **how: Any
) -> Checkpoint:
    """``train`` with what the step was given. ``depends_on`` is what else the result depends on; ``how`` are further arguments of ``train``. What was pruned
    stays zero where they do not say otherwise.
    """
    place, label = inputs.workdir / "training", inputs.label or method
    depends_on = {"method": method, **(depends_on or {})}
    how = {"hold": was_pruned(checkpoint)} | how
    return train(checkpoint, inputs.train, inputs.dev, config, inputs.seed, place, curve=inputs.curve, label=label, depends_on=depends_on, **how)


def prove_training(before: Checkpoint, after: Checkpoint) -> list[Claim]:
    """Weights moved, the shape is what it was, and what was pruned, if anything was, is still zero."""
    was, now = before.torch_network.state_dict(), after.torch_network.state_dict()
    moved = any(name not in now or not tensor.equal(now[name]) for name, tensor in was.items())
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=False)
    pruned = [(old.weight == 0, new.weight) for (_, old), (_, new) in pairs if old.weight.shape == new.weight.shape]
    parameters_before, parameters = (sum(tensor.numel() for tensor in distinct_tensors(which.torch_network).values()) for which in (before, after))
    claims = [Claim("parameters", parameters_before, parameters), Claim("weights moved", 1, float(moved))]
    if not was_pruned(before):
        return claims
    zeros = sum(int((linear.weight == 0).sum()) for _, linear in encoder_linears(before.torch_network))
    return [*claims, Claim("zeros that stayed zero", zeros, sum(int((weight[mask] == 0).sum()) for mask, weight in pruned))]
