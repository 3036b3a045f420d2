"""Models of language as steps take them: a tiny one saved, and a step through the runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.checkpoint import Checkpoint, save
from tests import six


def step(name: str, source: Path, target: Path, family: str = "llama", **dials: Any) -> StepReport:
    return run_step(name, get_method(name).config(**dials), source, target, six.inputs_of(family, target.with_name(f"{target.name}-work")))


def source_of(family: str, place: Path, change: Callable[[Checkpoint], object] | None = None, **config: Any) -> Path:
    checkpoint = six.checkpoint_of(family, **config)
    if change is not None:
        change(checkpoint)
    save(checkpoint, place / "source")
    return place / "source"
