"""Folders from the bench into the project, where they appear whole: all of them or none, whatever disks they lie on.

``raw/`` and ``prepared/`` may be links, mounts or volumes, and nothing can be renamed from one disk to another. So a folder is first brought beside its target,
and what stood there gives way only when everything new is in place.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from recompress.errors import StorageError
from recompress.integrity.durable import flush_tree


@contextmanager
def replaced(folders: Mapping[Path, Path]) -> Iterator[None]:
    """Put each folder in place of its target while the block is entered; where the block or the placing fails, the targets are as they were.

    ``folders``: source by target. Raises ``StorageError`` for a target that cannot be renamed (a mount of its own) or has no room.
    """
    mark = uuid.uuid4().hex[:8]
    targets = {target.resolve(): source for target, source in folders.items()}
    fresh = {target: _beside(target, "new", mark) for target in targets}
    former = {target: _beside(target, "old", mark) for target in targets}
    try:
        try:
            for target, source in targets.items():
                _clear_leftovers(target)
                _bring(source, fresh[target])
            for target in targets:
                if target.exists():
                    target.rename(former[target])
                fresh[target].rename(target)
        except OSError as error:
            raise StorageError(f"{error.filename or 'the data'} cannot be put into its place: {_reason(error)}; nothing was changed") from None
        yield
    except BaseException:
        for target in targets:
            if former[target].exists():
                shutil.rmtree(target, ignore_errors=True)
                former[target].rename(target)
        raise
    finally:
        for folder in (*fresh.values(), *former.values()):
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(source: Path, target: Path) -> None:
    """Move a folder to where nothing is yet. Raises ``StorageError``."""
    with replaced({target: source}):
        pass


def _beside(target: Path, word: str, mark: str) -> Path:
    return target.with_name(f".{target.name}.{word}-{mark}")


def _clear_leftovers(target: Path) -> None:
    """What a process left that was killed while it placed the same folder. Whoever places holds the bench's lock."""
    for leftover in target.parent.glob(f".{target.name}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for former in target.parent.glob(f".{target.name}.old-*"):
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            former.rename(target)


def _bring(source: Path, fresh: Path) -> None:
    fresh.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(fresh)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, fresh, copy_function=shutil.copyfile)
        with suppress(OSError):  # some file systems cannot be made to, and the hash is compared whenever the folder is used
            flush_tree(fresh)


def _reason(error: OSError) -> str:
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return "it is a mount of its own, and a mount cannot be replaced; mount the folder around it"
    return error.strerror or str(error)


def own_files(folder: Path) -> None:
    """Copies in place of the links that DVC put into a folder: what has a digest holds plain files only."""
    for path in [path for path in folder.rglob("*") if path.is_symlink()]:
        copy = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.copyfile(path.resolve(), copy)
        copy.replace(path)
