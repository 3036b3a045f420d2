"""Distill: train a small network to answer like the teacher, on labelled text and on any other text of the kind.

    loss = (1 - w) * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + w * cross-entropy of the labels

T is the temperature and w the weight of hard labels; text without labels counts in the first term alone.
Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2 (the factor T^2 keeps the gradients' size when T changes).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from recompress.benchmarks import Benchmark, Example
from recompress.checkpoint import Checkpoint
from recompress.distillation.teacher import unit_logits
from recompress.errors import EffectMissing, InputError
from recompress.method import Claim, Inputs, method
from recompress.training.proof import prove_training
from recompress.training.run import train
from recompress.training.settings import Schedule

log = logging.getLogger(__name__)
SAMPLE = 256
"""Examples on which the distance to the teacher is measured before and after."""
ALIKE = 1e-3
"""A mean divergence (nats) below which there is nothing left to learn."""


class Distill(Schedule):
    """How the student learns."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 5
    """Passes over the labelled and unlabelled examples together."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """The highest learning rate; students that lost much of their shape bear more than a whole network does."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens both distributions: the higher, the more the unlikely labels count."""
    hard_labels: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of the labels' own cross-entropy, in [0, 1]; 0 learns from the teacher alone."""
    unlabelled: Annotated[int, Field(ge=0)] | None = None
    """At most this many of the recipe's unlabelled examples, drawn with the seed; all of them when left out."""


def divergence(student: Float[Tensor, "*units labels"], teacher: Float[Tensor, "*units labels"], *, temperature: float) -> Float[Tensor, "*units"]:
    """KL(teacher || student) of each unit in nats, both softened by ``temperature``."""
    wanted, given = log_softmax(teacher / temperature, dim=-1), log_softmax(student / temperature, dim=-1)
    return (wanted.exp() * (wanted - given)).sum(dim=-1)


def distillation_loss(student: Float[Tensor, "batch units labels"], teacher: Float[Tensor, "batch units labels"], *, temperature: float) -> Float[Tensor, ""]:
    """T^2 * KL, the mean over units that the teacher spoke about (its row is not all zeros); 0 where it spoke about none."""
    taught = (teacher != 0).any(dim=-1)
    each = divergence(student, teacher, temperature=temperature)
    return temperature**2 * torch.where(taught, each, 0.0).sum() / taught.sum().clamp(min=1)


def mixed_loss(student: Float[Tensor, "batch units labels"], batch: dict[str, Tensor], *, temperature: float, hard_labels: float) -> Float[Tensor, ""]:
    """The formula at the head of this file."""
    from recompress.training.trainer import cross_entropy

    soft = distillation_loss(student.float(), batch["teacher"], temperature=temperature)
    return soft if hard_labels == 0 else (1 - hard_labels) * soft + hard_labels * cross_entropy(student, batch["labels"])


def prove(before: Checkpoint, after: Checkpoint, config: Distill) -> list[Claim]:
    return prove_training(before, after)


@method(
    "distill",
    Distill,
    family="distillation",
    prove=prove,
    source="Hinton, Vinyals and Dean 2015, arXiv:1503.02531",
    needs=("training", "teacher"),
)
def distill(checkpoint: Checkpoint, config: Distill, inputs: Inputs) -> Checkpoint:
    """Train the model to answer like the baseline, on labelled and unlabelled text.

    Raises ``InputError`` without a teacher, ``IntegrityError`` when its outputs belong to other examples, and ``EffectMissing`` when the student came no closer.
    """
    teacher = inputs.teacher
    if teacher is None:
        raise InputError("distill needs the outputs of a teacher, and was given none")
    text = [*inputs.train, *inputs.unlabelled]
    teacher.check_belongs_to(text, checkpoint.info.labels)
    chosen = choose(len(inputs.train), len(inputs.unlabelled), config.unlabelled, inputs.seed)
    examples, soft_labels = [text[i] for i in chosen], [teacher[i] for i in chosen]
    far = _distance(checkpoint, inputs.benchmark, examples, soft_labels, config.temperature)
    trained = train(
        checkpoint,
        examples,
        inputs.dev,
        config,
        inputs.seed,
        inputs.workdir / "training",
        curve=inputs.curve,
        label=inputs.label or "distill",
        soft_labels=soft_labels,
        objective=functools.partial(mixed_loss, temperature=config.temperature, hard_labels=config.hard_labels),
        said={"teacher": teacher.sha256},
    )
    near = _distance(trained, inputs.benchmark, examples, soft_labels, config.temperature)
    log.info("distill: divergence from the teacher %.4f before, %.4f after", far, near)
    if not near < max(far, ALIKE):  # a NaN is no success either
        raise EffectMissing(f"the student came no closer to its teacher (divergence {far:.4f} before, {near:.4f} after); lower learning_rate or raise epochs")
    return trained


def choose(labelled: int, unlabelled: int, at_most: int | None, seed: int) -> Int[np.ndarray, " chosen"]:
    """All labelled examples and then at most ``at_most`` unlabelled ones, by position in the two put together."""
    wanted = unlabelled if at_most is None else min(at_most, unlabelled)
    drawn = np.sort(np.random.default_rng(seed % 2**32).permutation(unlabelled)[:wanted])
    return np.concatenate([np.arange(labelled), labelled + drawn])


def _distance(checkpoint: Checkpoint, benchmark: Benchmark, examples: Sequence[Example], soft_labels: Sequence[np.ndarray], temperature: float) -> float:
    """Mean divergence from the teacher over the units of a fixed sample of the examples."""
    sample = np.linspace(0, len(examples) - 1, num=min(SAMPLE, len(examples)), dtype=np.int64)
    student = np.concatenate(unit_logits(checkpoint, benchmark, [examples[i] for i in sample]))
    teacher = np.concatenate([soft_labels[i] for i in sample])
    taught = teacher.any(axis=-1)
    return float(divergence(torch.from_numpy(student[taught]), torch.from_numpy(teacher[taught]), temperature=temperature).mean())
