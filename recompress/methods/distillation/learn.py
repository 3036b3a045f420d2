"""One student's lesson: which text it learns from, the training, and whether it came closer to its teacher."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from recompress.benchmarks import Example, benchmark_of
from recompress.errors import DataRefused, EffectMissing
from recompress.methods.distillation.dials import Imitation
from recompress.methods.distillation.imitation import Objective, imitating
from recompress.methods.distillation.live import LiveTeacher
from recompress.methods.registry import Inputs
from recompress.methods.training_step import was_pruned
from recompress.models.checkpoint import Checkpoint
from recompress.models.padding import padding_of
from recompress.runtimes.asking import units_of
from recompress.training.batches import collate
from recompress.training.judge import taught, training_features
from recompress.training.losses import losses_of
from recompress.training.precision import choose_precision
from recompress.training.run import train

if TYPE_CHECKING:
    from recompress.training.trainer import Rewrite

log = logging.getLogger(__name__)
SAMPLE = 256
"""Examples on which the distance to the teacher is measured before and after."""
ALIKE = 1e-3
"""A distance below which there is nothing left to learn."""
SoftLabels = Sequence[Float[np.ndarray, "units labels"]]


def choose(labelled: int, unlabelled: int, at_most: int | None, seed: int) -> Int[np.ndarray, " chosen"]:
    """All labelled examples and then at most ``at_most`` unlabelled ones, by position in the two put together."""
    wanted = unlabelled if at_most is None else min(at_most, unlabelled)
    drawn = np.sort(np.random.default_rng(seed % 2**32).permutation(unlabelled)[:wanted])
    return np.concatenate([np.arange(labelled), labelled + drawn])


def chosen_text(config: Imitation, inputs: Inputs) -> Int[np.ndarray, " chosen"]:
    """What the student learns from, by position in the training text and then the unlabelled. Raises ``DataRefused`` when that is nothing."""
    chosen = choose(len(inputs.train), len(inputs.unlabelled), config.unlabelled, inputs.seed)
    chosen = chosen if config.labelled else chosen[len(inputs.train) :]
    if not len(chosen):
        raise DataRefused("there is no text to learn from; name a data set of plain text (dataset.unlabelled), or allow labelled text")
    return chosen


def learn(
    student: Checkpoint,
    config: Imitation,
    inputs: Inputs,
    text: Sequence[Example],
    *,
    teacher: LiveTeacher | None,
    soft_labels: SoftLabels | None,
    depends_on: Mapping[str, Any],
    label: str,
    dev_counts: bool,
    rewrite: Rewrite | None = None,
) -> Checkpoint:
    """Train ``student`` in place to be like its teacher; with the weights that were best on dev, or the last ones where dev says nothing of what is learned.

    Raises ``EffectMissing`` when it came no closer, ``InputError`` when the two cannot be compared, and what ``train`` raises.
    """
    use_bf16 = choose_precision(config.precision) == "bf16" and inputs.benchmark.head.answer != "number"  # whose unit may need more than 8 bits
    with imitating(student.torch_network, teacher, config, seed=inputs.seed, use_bf16=use_bf16, losses=losses_of(student.info)) as objective:
        features = _sample(student, text, soft_labels, label)
        far = _distance(student, features, objective, config.batch_size)
        trained = train(
            student,
            text,
            inputs.dev,
            config,
            inputs.seed,
            inputs.workdir / "training",
            curve=inputs.curve,
            label=inputs.label or label,
            soft_labels=soft_labels,
            objective=objective,
            rewrite=rewrite,
            depends_on=depends_on,
            hold=was_pruned(student),
            counts_from=0.0 if dev_counts else 1.0,
        )
        near = _distance(trained, features, objective, config.batch_size)
    log.info("%s: distance from what is learned %.4f before, %.4f after", label, far, near)
    if not near < max(far, ALIKE):  # a NaN is no success either
        raise EffectMissing(
            f"the student came no closer to what it learns from (distance {far:.4f} before, {near:.4f} after); lower learning_rate or raise epochs"
        )
    return trained


def _sample(student: Checkpoint, text: Sequence[Example], soft_labels: SoftLabels | None, label: str) -> list[dict[str, Any]]:
    """Features of some of the text, evenly spread."""
    places = np.linspace(0, len(text) - 1, num=min(SAMPLE, len(text)), dtype=np.int64)
    some = [text[i] for i in places]
    features, _, _ = training_features(student, some, some, label)  # dev is not looked at here
    return features if soft_labels is None else taught(benchmark_of(student.info), features, [soft_labels[i] for i in places], some)


def _distance(student: Checkpoint, features: Sequence[dict[str, Any]], objective: Objective, batch_size: int) -> float:
    """The mean over batches of the whole formula, labels included where they count, the student in evaluation mode; on the GPU where there is one."""
    network: Any = student.torch_network.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    total = 0.0
    network.to(device)
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=objective.use_bf16):
            for start in range(0, len(features), batch_size):
                rows = features[start : start + batch_size]
                batch = {name: tensor.to(device) for name, tensor in collate(rows, padding_of(network)).items()}
                total += float(objective(units_of(network, batch), batch)) * len(rows)
    finally:
        network.to("cpu")
    return total / len(features)
