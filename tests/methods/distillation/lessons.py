"""A tiny teacher of any architecture on disk, and all that a student of it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example
from recompress.methods.distillation.dials import Correction, Shape
from recompress.methods.distillation.distill import Distill, distill
from recompress.methods.distillation.teacher import teacher_outputs
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import save
from recompress.training.run import weights_sha256
from tests.six import DECODERS, checkpoint_of, examples_of, inputs_of

EVERYTHING: dict[str, Any] = {
    "student": Shape(layers=1, hidden=24, heads=2, neurons=40),
    "hidden": 1.0,
    "embeddings": 1.0,
    "attention": 1.0,
    "relation_heads": 4,
    "hard_labels": 0.2,
}
QUICK: dict[str, Any] = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 16, "precision": "fp32"}


def lesson_of(family: str, folder: Path) -> Inputs:
    """Inputs whose teacher lies in ``folder / "teacher"``; its base model is itself."""
    if not (folder / "teacher").exists():
        save(checkpoint_of(family), folder / "teacher")
    inputs = inputs_of(family, folder / "work", 24)
    plain = [Example(example.words, (), example.slice) for example in examples_of(family, 24, seed=5)]
    outputs = None if family in DECODERS else teacher_outputs(folder / "teacher", [*inputs.train, *plain], folder / "outputs")
    return replace(inputs, unlabelled=plain, teacher=outputs, teacher_model=folder / "teacher", base=folder / "teacher")


def lesson_run(family: str, folder: Path) -> str:
    """The digest of a student that learned all that can be learned, its teacher's correction included, in ``folder``."""
    config = Distill(**(QUICK | EVERYTHING | {"teacher_correction": Correction(epochs=2, learning_rate=1e-2, batch_size=16, precision="fp32")}))
    inputs = replace(lesson_of(family, folder / "lesson"), workdir=folder / "work")
    return weights_sha256(distill(checkpoint_of(family, seed=1), config, inputs).torch_network)
