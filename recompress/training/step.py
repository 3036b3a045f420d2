"""The training inside a step of a recipe: on the step's inputs, in its folder, under its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.training.run import train
from recompress.training.settings import Schedule


def train_in_step(checkpoint: Checkpoint, config: Schedule, inputs: Inputs, method: str, *, said: Mapping[str, Any] | None = None, **how: Any) -> Checkpoint:
    """``train`` with what the step was given. ``said`` is what else the result depends on; ``how`` are further arguments of ``train``."""
    place, label = inputs.workdir / "training", inputs.label or method
    told = {"method": method, **(said or {})}
    return train(checkpoint, inputs.train, inputs.dev, config, inputs.seed, place, curve=inputs.curve, label=label, said=told, **how)
