"""Measuring time beside nothing else: the work of a project on this machine shares a room, and whoever measures time has it alone.

Both are file locks, which the operating system lets go of when a process dies. Whoever wants the room alone closes the door first, so that it is not kept
waiting for ever by work that follows on work.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recompress.integrity.file_lock import cannot_lock

Say = Callable[[str], None]


@contextmanager
def at_work(home: Path, say: Say, label: str, *, alone: bool = False) -> Iterator[None]:
    """Work while the block lasts: beside others, or ``alone``. ``say`` is told once where that has to be waited for. Blocks of one process do not nest."""
    folder = home / ".recompress"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "door.lock").open("a") as door, (folder / "room.lock").open("a") as room:
        waiting = f"{label} · waiting until other work in this project is done, for time is measured" if alone else f"{label} · waiting while time is measured"
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        said = _lock(door, how, say, waiting)
        _lock(room, how, (lambda _: None) if said else say, waiting)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


def _lock(file: IO[str], how: int, say: Say, waiting: str) -> bool:
    """Take a lock; gives whether it had to be waited for. Raises ``StorageError`` for a file system that cannot lock."""
    try:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, how)
            return True
    except OSError as error:
        raise cannot_lock(Path(file.name), error) from None
    return False
