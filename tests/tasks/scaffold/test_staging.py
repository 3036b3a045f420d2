"""Killed at any moment, ``init`` leaves nothing half-written: no project, or a whole one after the next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from recompress.errors import InputError, StorageError
from tasks.running.home import is_project
from tasks.scaffold import staging as stages
from tasks.scaffold.place import brought
from tasks.scaffold.staging import finish_if_cut, held, move, staging

FILES = (
    "recipes/toy.yaml",
    "policies/toy.yaml",
    "params.yaml",
    "raw/toy/toy.csv",
    "raw/toy.dvc",
    "prepared/toy/train.parquet",
    "dvc.lock",
    "dvc.yaml",
    ".gitignore",
)


class Killed(BaseException):
    pass


def fill(staged: Path) -> None:
    for file in FILES:
        (staged / file).parent.mkdir(parents=True, exist_ok=True)
        (staged / file).write_text("stages: {}\n" if file == "dvc.yaml" else file)


def begin(folder: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    with staging(folder) as staged:
        assert all_in(staged) == set()
        fill(staged)
        meanwhile()
        move(staged, folder, brought("toy"))


def all_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moved", range(len(FILES)))
def test_a_kill_while_files_move_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    """``Path.rename`` is where a kill may come in between; the first one is that of the list of what is to be moved."""
    (tmp_path / "mine.txt").write_text("mine")
    rename, left = Path.rename, [moved + 1]

    def dies(path: Path, target: Path) -> Path:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(Killed):
        begin(tmp_path)
    monkeypatch.setattr(Path, "rename", rename)
    assert not is_project(tmp_path), "what makes it a project comes last"
    with pytest.raises(InputError, match="was cut off while its files were moved .* it is a project with all that belongs to it"):
        finish_if_cut(tmp_path)
    assert all_in(tmp_path) == {"mine.txt", *FILES}
    assert is_project(tmp_path)
    finish_if_cut(tmp_path)


def test_what_a_killed_process_left_before_that_goes(tmp_path: Path) -> None:
    (tmp_path / stages.STAGING / "files" / "raw").mkdir(parents=True)
    (tmp_path / stages.STAGING / "files" / "raw" / "half.csv").write_text("a,b")
    finish_if_cut(tmp_path)
    begin(tmp_path)
    assert all_in(tmp_path) == set(FILES)


def test_what_came_to_stand_there_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml was made while the project was"):
        begin(tmp_path, lambda: (tmp_path / "params.yaml").write_text("mine"))
    assert (tmp_path / "params.yaml").read_text() == "mine"
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(InputError, match="it is a project with"):
        finish_if_cut(tmp_path)
    assert all_in(tmp_path) == set(FILES)


def hold(folder: Path, ready: multiprocessing.synchronize.Event, end: multiprocessing.synchronize.Event) -> None:
    with held(folder):
        ready.set()
        end.wait(30)


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, end))
    other.start()
    assert ready.wait(60)
    (tmp_path / stages.STAGING).mkdir()
    with pytest.raises(StorageError, match="another recompress init or data add works in"), staging(tmp_path):
        pass
    assert (tmp_path / stages.STAGING).is_dir(), "the other's work is left alone"
    end.set()
    other.join()


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stages, "flush_tree", full)
    with pytest.raises(StorageError, match="no space left while writing"):
        begin(tmp_path / "new")
    assert not (tmp_path / "new").exists()
