"""Locks on files, between processes of one machine: the operating system lets go of them when whoever holds one dies."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import StorageError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""How file systems say that they cannot lock: some mounts of NFS and Lustre, and some FUSE ones."""


@contextmanager
def locked(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold a file lock, which the operating system lets go of when the process dies. With ``busy``, refuse with that line instead of waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise StorageError(str(busy)) from None
        except OSError as error:
            raise cannot_lock(path, error) from None
        yield


def cannot_lock(path: Path, error: OSError) -> Exception:
    """What a lock that failed means for a person; the error itself where it is not the file system that cannot lock."""
    if error.errno not in NO_LOCKS:
        return error
    return StorageError(f"this file system cannot lock files ({path}: {error.strerror}); put the project on a local disk, or mount this one with locks")
