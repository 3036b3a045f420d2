"""What a format of export has to say: whether it can hold a model, how the folder is written, and how the runtime that it is for reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recompress.models.checkpoint import Info
from recompress.models.files import CONFIG_FILE
from recompress.models.heads import head_of
from recompress.models.tokenizer import BACKEND_FILE, SETTINGS_FILE
from recompress.runtimes import Feature
from recompress.runtimes.batches import inputs_of, pad_batch, with_all

Reader = Callable[[Sequence[Feature]], list[Float[np.ndarray, "..."]]]
"""Logits for each feature, as ``recompress.runtimes.Runtime.logits`` gives them, by the foreign runtime, one text at a time."""


@dataclass(frozen=True)
class Format:
    """One format of export."""

    check: Callable[[Path, Info], None]
    """Raises ``InputError`` for a model that the format cannot hold, and says which one can."""
    write: Callable[[Path, Info, Path], None]
    """``write(directory, info, target)`` into a folder that exists and is empty."""
    reader: Callable[[Path, Info], Reader]
    close: Callable[[Info], float]
    """The largest difference of a logit, relative to the largest logit, that the other runtime may give for a model like this."""
    usage: str
    """How a person uses the folder, as Markdown."""
    ask: str = ""
    """How the lines of a card ask the runtime; ``{given}`` is what."""
    why_apart: Callable[[Info], str] = lambda info: ""
    """Why a model like this may be answered otherwise all the same, and the way out."""
    notes: Callable[[Path, Path], Sequence[str]] = lambda directory, target: ()
    """``notes(directory, target)``: what the card says of files that store something otherwise than the model that was judged."""


def one_by_one(features: Sequence[Feature], names: Sequence[str]) -> Iterator[dict[str, Int[np.ndarray, "1 length"]]]:
    """What a graph with inputs of these names is given for each text alone."""
    for feature in features:
        yield with_all(pad_batch([inputs_of(feature)], 0), names)


def copy_text_files(directory: Path, info: Info, target: Path) -> None:
    """Config and tokenizer, which everybody's tools read: the labels in the order in which the model gives them, and the longest sequence that it reads."""
    shutil.copyfile(directory / BACKEND_FILE, target / BACKEND_FILE)
    settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8")) | {"model_max_length": info.max_length}
    _write(target / SETTINGS_FILE, settings)
    config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    if info.labels:
        config |= {"id2label": {str(i): label for i, label in enumerate(info.labels)}, "label2id": {label: i for i, label in enumerate(info.labels)}}
    if problem := head_of(info.benchmark).problem_type:
        config["problem_type"] = problem  # how others read its numbers
    _write(target / CONFIG_FILE, config)


def edit_config(target: Path, changes: dict[str, Any]) -> None:
    """Say more in the config of a folder that is being written."""
    config = json.loads((target / CONFIG_FILE).read_text(encoding="utf-8"))
    _write(target / CONFIG_FILE, config | changes)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
