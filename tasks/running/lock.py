"""One recompression of a recipe at a time, whoever begins it: a command, a watch, or a flow that a Prefect worker starts."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import StorageError
from recompress.ledger import Ledger
from tasks.ledger.access import ledger_if_any
from tasks.running.leases import Held, held, is_gone, take, told

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
BUSY = "is being run already by"
"""Stands in the refusal of a recipe that another process runs."""


def is_busy(error: object) -> bool:
    """Whether an error of a command says that somebody runs the same recipe."""
    return isinstance(error, str) and BUSY in error


def check_free(home: Path, recipe: str) -> None:
    """Raises ``StorageError`` while another process runs a recipe of this name: asked before any server starts. Nothing is held."""
    ledger = ledger_if_any(home)
    who = ledger.leases.holder(_name(recipe)) if ledger is not None else None
    if who is not None and not is_gone(who):
        raise _refusal(recipe, who)


@contextmanager
def recipe_held(ledger: Ledger, recipe: str) -> Iterator[Held]:
    """Hold a recipe, by its name, for one recompression. Raises ``StorageError`` while another one runs; other recipes may run beside it."""
    lease = take(ledger, _name(recipe))
    if lease is None:
        raise _refusal(recipe, ledger.leases.holder(_name(recipe)))
    with held(ledger, lease) as mine:
        yield mine


def _name(recipe: str) -> str:
    return f"run {recipe}"


def _refusal(recipe: str, who: str | None) -> StorageError:
    return StorageError(f"recipe {recipe!r} {BUSY} {told(who) if who else 'somebody'}; wait for it to end, or run another recipe beside it")


@contextmanager
def out_of_room(home: Path) -> Iterator[None]:
    """Say in one line that there is no place to write."""
    try:
        yield
    except OSError as error:
        if error.errno in OUT_OF_ROOM:
            raise StorageError(f"{OUT_OF_ROOM[error.errno]} at {error.filename or home}; nothing is half-written, mend that and run again") from None
        raise
