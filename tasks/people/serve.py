"""A version over HTTP, by the server of this package: checked from outside, copied, opened, and followed by whatever is promoted next."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recompress.errors import StorageError
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded, load_version
from recompress.serving.server import bound, serve
from tasks.people.check import Checked, Stopped, check_apart
from tasks.running.servers import SIGNALS, noted_signals
from tasks.tracking.reading import means_alias
from tasks.tracking.track import Store

PATIENCE_S = 5.0
"""What a look that is under way may take to end."""


@dataclass
class Followed:
    """The version that a reference means, each time in a folder of its own below a private one."""

    root: Path
    reference: str
    private: Path
    ended: Sequence[signal.Signals]
    say: Callable[[str], None]
    now: Checked | None = None
    _number: int = field(default=0, init=False)
    _looks: threading.Lock = field(default_factory=threading.Lock, init=False)

    def first(self) -> Loaded:
        """Raises as ``check_apart`` does."""
        return self._load()

    def newer(self) -> Loaded | None:
        """The version that the alias names now, checked and opened; ``None`` where it is the one that was loaded last. Raises as ``check_apart`` does."""
        with self._looks:
            assert self.now is not None
            if champion_now(self.root, self.now.model) == self.now.version:
                return None
            before = self.now
            loaded = self._load()
            shutil.rmtree(before.folder, ignore_errors=True)  # what is in memory goes on without it
            return loaded

    def wait(self) -> None:
        """Until a look that is under way has noticed the signal, so that nothing is written any more."""
        self._looks.acquire(timeout=PATIENCE_S)

    def _load(self) -> Loaded:
        self._number += 1
        folder = self.private / f"{self._number}"
        try:
            checked = check_apart(self.root, self.reference, folder, lambda: bool(self.ended))
            self.say(checked.told)
            loaded = load_version(checked.model, checked.version, checked.manifest_sha256, checked.folder / MODEL_FOLDER)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.now = checked
        return loaded


def champion_now(root: Path, model: str) -> str | None:
    """What the alias names by the rows of the project's own store; where that is a server, what the ledger promoted last, because asking MLflow takes its client.

    Whatever it is, it is held against the other before it is served.
    """
    store = Store(root)
    if (rows := store.rows) is not None:
        found = rows.with_alias(model, "champion")
        return None if found is None else found.version
    from recompress.promotion import champion_by_ledger
    from tasks.ledger.access import open_ledger

    return champion_by_ledger(open_ledger(root, create=False), model)


def _private() -> tempfile.TemporaryDirectory[str]:
    """A folder that only this user may read, and that goes at the end."""
    return tempfile.TemporaryDirectory(prefix="recompress-serve-", ignore_cleanup_errors=True)


def serve_model(root: Path, reference: str, host: str, port: int, limits: Limits, every_s: float, say: Callable[[str], None]) -> int:
    """Serve ``name@champion`` and what becomes champion after it, or ``name@3`` alone, until a signal comes; gives the exit code that belongs to it.

    Raises as ``check`` does, and ``StorageError`` for an address that is taken, before anything is checked.
    """
    with noted_signals() as ended, bound(host, port) as listening, _private() as private:
        followed = Followed(root, reference, Path(private), ended, say)
        try:
            loaded = followed.first()
            serve(loaded, listening, limits, ended, say, followed.newer if means_alias(reference) else None, every_s)
            followed.wait()
        except Stopped:
            pass
        if not ended:
            raise StorageError("the server stopped by itself; start it again")
    say(SIGNALS[ended[0]])
    return 128 + ended[0]
