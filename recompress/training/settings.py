"""The dials of training, the same for a baseline, for further training after a step, and for distillation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recompress.settings.base import Settings, Share

Precision = Literal["auto", "fp32", "bf16"]


class Schedule(Settings):
    """How a network is trained. AdamW; the learning rate rises linearly during the warm-up, from the first step on, and then falls linearly to 0."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the training examples."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """The highest learning rate."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Examples in a batch on each device."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's decay of weights (biases, norms and learned scales are left alone)."""
    warmup: Share = 0.1
    """Share of all steps in which the learning rate rises."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop when the benchmark's primary metric on dev has not risen for this many epochs; all epochs are trained when left out."""
    precision: Precision = "auto"
    """``bf16``: matrix products in bfloat16, weights in fp32. ``auto`` takes it where the processor has instructions for it."""
    group_by_length: bool = True
    """Put examples of like length into one batch, so that little is padded."""


class TrainingSettings(Schedule):
    """How the baseline is fine-tuned."""

    max_length: Annotated[int, Field(ge=8, le=131072)] = 128
    """Longest sequence in tokens; what is longer is cut off, when training and when serving."""
