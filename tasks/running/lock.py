"""One recompression in one project at a time, whoever begins it: the command, before it starts any server, or a flow that a Prefect worker starts."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import StorageError
from tasks.tracking.track import locked

OUT_OF_ROOM = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "no space left",
    errno.EROFS: "read-only",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "a file is larger than this file system or its limit (ulimit -f) allows",
    errno.EIO: "the disk reports an input/output error",
    errno.ESTALE: "the network file system lost the file",
    errno.EMFILE: "too many open files (ulimit -n)",
}
"""What is no fault of the code or of the input, in words."""
BUSY = "another recompression is running in this project; wait for it to end"
_taken: set[Path] = set()
"""Projects that this process holds for a recompression that is about to begin."""


@contextmanager
def project_taken(home: Path) -> Iterator[None]:
    """Hold the project for the recompression that this process begins inside the block. Raises ``StorageError`` while another one runs in it."""
    with out_of_room(home), project_held(home):
        _taken.add(home)
        try:
            yield
        finally:
            _taken.discard(home)


@contextmanager
def project_held(home: Path) -> Iterator[None]:
    """Hold the project, unless it was taken for us: only one recompression gets it so."""
    if home in _taken:
        _taken.discard(home)
        yield
        return
    with locked(home / ".recompress" / "lock", busy=BUSY):
        yield


@contextmanager
def out_of_room(home: Path) -> Iterator[None]:
    """Say in one line that there is no place to write."""
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_ROOM:
            raise StorageError(f"{OUT_OF_ROOM[error.errno]} at {error.filename or home}; nothing is half-written, mend that and run again") from None
        raise
