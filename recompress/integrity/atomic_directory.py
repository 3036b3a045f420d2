"""Directories that are there in full or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import InputError, StorageError
from recompress.integrity.durable import flush, flush_tree


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yields an empty temporary sibling of ``target``, which takes its name when the block ends well and is removed when it does not.

    Raises ``InputError`` when ``target`` exists, before and after, or would lie below a file, and ``StorageError`` when the disk is full or read-only.
    """
    refuse_existing(target)
    partial = target.parent / f".{target.name}.partial-{uuid.uuid4().hex}"
    try:
        partial.mkdir(parents=True)
        yield partial
        flush_tree(partial)
        refuse_existing(target)
        partial.rename(target)
        for parent in (target.parent, target.parent.parent):
            flush(parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        storage = storage_error(error, target)
        if storage is not None:
            raise storage from None
        raise


def storage_error(error: BaseException, target: Path) -> StorageError | None:
    """The one line for a disk that is full or cannot be written; ``None`` for any other error. Some libraries hide the system's error in their own text."""
    hidden = re.search(r"os error (\d+)|\[Errno (\d+)\]", str(error))  # the second is what shutil gathers from a tree
    code = error.errno if isinstance(error, OSError) and error.errno is not None else int(hidden[1] or hidden[2]) if hidden else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left while writing {target}; free some or write elsewhere")
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageError(f"{target} cannot be written: {os.strerror(code)}; choose a folder that you may write to")
    if code == errno.ENAMETOOLONG:
        return StorageError(f"{target} cannot be written: its name is too long for this disk; choose a shorter one")
    if code in (errno.ENOTDIR, errno.ELOOP):
        return StorageError(f"{target} cannot be written: {os.strerror(code)}; choose another place")
    return None


def refuse_existing(target: Path) -> None:
    """Raises ``InputError`` for whatever stands where something new is to be, and for a place that has no room for it: below a file."""
    if os.path.lexists(target):
        raise InputError(f"{target} exists already and is not overwritten; remove it or choose another name")
    nearest = next((parent for parent in target.parents if os.path.lexists(parent)), None)
    if nearest is not None and not nearest.is_dir():
        raise InputError(f"{nearest} is no folder, so {target} cannot lie below it; choose another place")
