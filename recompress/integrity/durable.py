"""What is named must be on the disk: a file that is closed lies in memory still, and after a power loss it may be there with no bytes, or with some of them.

Files are forced to the disk first, then the directories that name them, from the deepest to the top; only then may a record or a tag speak of them.
"""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Force one file, or the names in one directory, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def flush_tree(path: Path, top: Path | None = None) -> None:
    """Force a file, or everything below a directory, to the disk, and then the directories above it up to ``top`` (the nearest alone when left out)."""
    if path.is_dir():
        for folder, _, files in os.walk(path, topdown=False):
            for name in files:
                flush(Path(folder, name))
            flush(Path(folder))
    else:
        flush(path)
    for parent in path.parents:
        flush(parent)
        if top is None or parent == top or not parent.is_relative_to(top):
            return


def ends_early(path: Path, size: int) -> bool:
    """Whether a file that should have ``size`` bytes has fewer, or is not there."""
    return not path.is_file() or path.stat().st_size < size
