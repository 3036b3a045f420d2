"""Shapes that are tried: each is timed or trained a little, and what came out is kept in a folder as soon as it is known."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example
from recompress.errors import TrainingDiverged
from recompress.integrity.atomic_directory import storage_error
from recompress.methods.registry import Inputs
from recompress.methods.slimming.score import Score, dev_score
from recompress.methods.slimming.shapes import Shape
from recompress.methods.slimming.time_share import time_share
from recompress.models.checkpoint import Checkpoint
from recompress.models.surgery import parameters_of
from recompress.training.run import train
from recompress.training.settings import Schedule

log = logging.getLogger(__name__)
Make = Callable[[Shape], Checkpoint]
"""Gives a copy of the network, cut to a shape."""
WORST = Score(-math.inf, -math.inf)


def timed(whole: Checkpoint, make: Make, shape: Shape, folder: Path) -> float:
    """A shape's share of the time; read from ``times.json``, where that is known."""
    known = folder / "times.json"
    times: dict[str, float] = _read(known) or {}
    name = "-".join(map(str, shape))
    if name not in times:
        times[name] = time_share(whole, make(shape))
        _write(known, times)
    return times[name]


def ranked(make: Make, shapes: Sequence[Shape], schedule: Schedule, examples: Sequence[Example], folder: Path, inputs: Inputs) -> list[Shape]:
    """The shapes, the best first, after a training of each with ``examples``; ``ranking.json`` and the log say what they scored.

    Raises ``TrainingDiverged`` when none could be trained, and ``StorageError`` when the folder cannot be written.
    """
    trials = []
    for i, shape in enumerate(shapes):
        known, place = folder / f"candidate-{i:02d}.json", folder / f"trial-{i:02d}"
        trial = _read(known)
        if trial is None:
            trial = _tried(make(shape), shape, schedule, examples, place, inputs, f"shape {i + 1} of {len(shapes)}")
            _write(known, trial)
            shutil.rmtree(place, ignore_errors=True)
        trials.append(trial)
    ranking = sorted(trials, key=lambda one: Score(*one["score"]) if one["score"] else WORST, reverse=True)
    _write(folder / "ranking.json", ranking)
    for number, one in enumerate(ranking, 1):
        log.info("search: %d. %s, on dev %s", number, one["shape"], one["score"])
    if ranking[0]["score"] is None:
        raise TrainingDiverged("search: no shape could be trained; lower learning_rate or raise warmup")
    return [Shape(**one["shape"]) for one in ranking]


def _tried(cut: Checkpoint, shape: Shape, schedule: Schedule, examples: Sequence[Example], place: Path, inputs: Inputs, label: str) -> dict[str, Any]:
    trial: dict[str, Any] = {"shape": shape._asdict(), "parameters": parameters_of(cut.torch_network.state_dict().values()), "score": None}
    try:
        trained = train(cut, examples, inputs.dev, schedule, inputs.seed, place, label=label)
    except TrainingDiverged as error:
        log.warning("search: %s could not be trained (%s)", shape._asdict(), error)
        return trial
    return {**trial, "score": [*dev_score(trained, inputs.dev, label)]}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Any) -> None:
    """All or nothing. Raises ``StorageError`` when the folder cannot be written."""
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, path.parent) or error from None
