"""Folders and checkpoints of a training: whole or passed over, ours or emptied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.training.resume import keep_only, newest, open_folder, seal


def checkpoint(folder: Path, step: int, *, best: int | None = None, sealed: bool = True) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(bytes(range(step % 256)) + b"weights")
    (place / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": best}))
    if sealed:
        seal(place)
    return place


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    assert open_folder(tmp_path / "new", {"seed": 0}) is None
    open_folder(tmp_path, {"seed": 0})
    checkpoint(tmp_path, 9)
    expected = checkpoint(tmp_path, 10, best=9)
    checkpoint(tmp_path, 100, sealed=False)
    assert open_folder(tmp_path, {"seed": 0}) == expected
    assert not (tmp_path / "checkpoint-100").exists(), "what was being written when the process was killed is removed"


@pytest.mark.parametrize("harm", ["change", "cut", "remove", "add", "seal"])
def test_a_checkpoint_that_was_changed_is_passed_over(tmp_path: Path, harm: str) -> None:
    expected, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    weights = newer / "model.safetensors"
    if harm == "change":
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "remove":
        weights.unlink()
    elif harm == "add":
        (newer / "more").write_text("more")
    else:
        (newer / "seal.json").write_text('[["../../etc/passwd", 1, "0"]]')
    assert newest(tmp_path) == expected


def test_a_checkpoint_whose_best_one_is_gone_is_passed_over(tmp_path: Path) -> None:
    best = checkpoint(tmp_path, 1, best=1)
    checkpoint(tmp_path, 2, best=1)
    (best / "model.safetensors").unlink()
    assert newest(tmp_path) is None


def test_a_folder_of_another_training_is_emptied_never_resumed(tmp_path: Path) -> None:
    open_folder(tmp_path, {"seed": 0, "labels": ("a",)})
    whole = checkpoint(tmp_path, 5)
    assert open_folder(tmp_path, {"seed": 0, "labels": ("a",)}) == whole
    assert open_folder(tmp_path, {"seed": 1, "labels": ("a",)}) is None
    assert not whole.exists()


def test_a_broken_stamp_is_another_training(tmp_path: Path) -> None:
    open_folder(tmp_path, {"seed": 0})
    checkpoint(tmp_path, 5)
    (tmp_path / "training.json").write_text('{"seed": ')
    assert open_folder(tmp_path, {"seed": 0}) is None


def test_keep_only(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    keep_only(tmp_path, {1, 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        open_folder(tmp_path / "file" / "below", {})
