"""Files that are made aside and appear together: one process at a time, what makes them a project last, and whole also when a kill comes in between.

A new project brings all of its files; data that is added to one brings some, and takes the place of ``params.yaml`` and ``dvc.lock``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import InputError, StorageError
from recompress.integrity.atomic_directory import storage_error
from recompress.integrity.durable import flush_tree

STAGING = ".recompress-init"
WHOLE = "whole"
"""Stands beside the files once all of them are there."""


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder inside ``folder``, which is made where it is not there. Both are gone again when the block fails before ``move`` began.

    Raises ``StorageError`` while another process begins a project here, and for a disk that is full or read-only.
    """
    new = next((place for place in (*reversed(folder.parents), folder) if not place.exists()), None)
    home = folder / STAGING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            shutil.rmtree(home, ignore_errors=True)  # what a killed process left
            (home / "files").mkdir(parents=True)
            (home / ".gitignore").write_text("*\n")
            yield home / "files"
    except BaseException as error:
        if not (home / WHOLE).exists() and not isinstance(error, Busy):
            shutil.rmtree(home if new is None else new, ignore_errors=True)
        if (storage := storage_error(error, folder)) is not None:
            raise storage from None
        raise


class Busy(StorageError):
    """Another process begins a project in the same folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder itself, so that no file is left of it. Raises ``Busy``."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Busy(f"another recompress init or data add works in {folder}; wait for it to end") from None
    finally:
        os.close(handle)


def move(staged: Path, folder: Path, leaves: Sequence[str], *, replacing: Sequence[str] = ()) -> None:
    """Each of ``leaves`` that is there to its place, in this order. Raises ``InputError`` for what has come to stand there in the meantime, unless it is to be
    replaced."""
    whole = staged.parent / WHOLE
    if not whole.exists():
        flush_tree(staged)
        partial = whole.with_suffix(".partial")
        there = [leaf for leaf in leaves if (staged / leaf).exists()]
        partial.write_text(json.dumps({"leaves": there, "replacing": [*replacing]}), encoding="utf-8")
        partial.rename(whole)
    plan = json.loads(whole.read_text(encoding="utf-8"))
    for leaf in plan["leaves"]:
        if not (staged / leaf).exists():  # moved before a kill
            continue
        target = folder / leaf
        if (target.exists() or target.is_symlink()) and leaf not in plan["replacing"]:
            raise InputError(f"{target} was made while the project was, and is not overwritten; take it away, and the same command moves the rest")
        target.parent.mkdir(parents=True, exist_ok=True)
        (staged / leaf).rename(target)
    shutil.rmtree(staged.parent)


def finish_if_cut(folder: Path) -> None:
    """Move the rest of what was being moved when its process was killed. Raises ``InputError`` that says so."""
    home = folder / STAGING
    if (home / WHOLE).exists():
        with held(folder):
            move(home / "files", folder, ())
        raise InputError(
            f"an earlier command was cut off while its files were moved to {folder}; the rest was moved now, and it is a project with all that belongs to it: "
            "recompress data status"
        )
