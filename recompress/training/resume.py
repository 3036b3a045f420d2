"""Where a training was when it was killed: sealed checkpoints in a stamped folder.

The stamp says which training the folder belongs to; a folder with another stamp is emptied, never resumed. A checkpoint counts once its seal is written, which
is the manifest of its files; one that was being written, or was changed since, is passed over. Files that torch wrote are read by ``Trainer`` with
``weights_only=True``, which builds tensors and plain values and runs no code; nothing of them leaves the folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from recompress.errors import IntegrityError, StorageError
from recompress.integrity.digest import FileEntry, check_manifest, manifest

log = logging.getLogger(__name__)
STAMP = "training.json"
SEAL = "seal.json"
PREFIX = "checkpoint-"


def open_folder(folder: Path, stamp: dict[str, Any]) -> Path | None:
    """Make the folder this training's own, and give its newest whole checkpoint. ``stamp`` is plain JSON. Raises ``StorageError``."""
    place = folder / STAMP
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _read(place) != json.loads(json.dumps(stamp)):
            if place.exists():
                log.warning("%s holds another training; it is emptied and this one starts anew", folder)
            keep_only(folder, set())
            _write(place, stamp)
        return newest(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); training checkpoints need a folder with some space") from None


def newest(folder: Path) -> Path | None:
    """The whole checkpoint with the most steps whose best one is whole too; those before it that are not are removed."""
    for checkpoint in sorted(folder.glob(f"{PREFIX}*"), key=_steps, reverse=True):
        if is_whole(checkpoint) and is_whole(folder / f"{PREFIX}{best_step(checkpoint) or _steps(checkpoint)}"):
            return checkpoint
        log.warning("%s is not whole and is passed over", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def seal(checkpoint: Path) -> None:
    _write(checkpoint / SEAL, [list(entry) for entry in manifest(checkpoint, leave_out=[SEAL])])


def is_whole(checkpoint: Path) -> bool:
    entries = _read(checkpoint / SEAL)
    try:
        check_manifest(checkpoint, [FileEntry(*entry) for entry in entries or ()], leave_out=[SEAL])
    except (IntegrityError, TypeError):
        return False
    return True


def keep_only(folder: Path, steps: set[int]) -> None:
    """Remove checkpoints of other steps."""
    for checkpoint in folder.glob(f"{PREFIX}*"):
        if _steps(checkpoint) not in steps:
            shutil.rmtree(checkpoint)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What ``Trainer`` wrote about the training so far."""
    state: dict[str, Any] = _read(checkpoint / "trainer_state.json") or {}
    return state


def best_step(checkpoint: Path) -> int | None:
    """The step whose weights were the best on dev when ``checkpoint`` was written; ``None`` before the first evaluation."""
    return state_of(checkpoint).get("best_global_step")


def _steps(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(PREFIX)
    return int(number) if number.isdigit() else -1


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Any) -> None:
    """All or nothing: a reader sees the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
