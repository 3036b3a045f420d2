"""MLflow stores for tests: making one takes seconds, copying one does not."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from functools import cache
from pathlib import Path

from tasks.tracking.track import Store
from tests.children import Child


def new_store(root: Path) -> Path:
    """Make ``root`` a project with an empty store."""
    source = _empty()
    shutil.copytree(source / "mlflow", root / "mlflow")
    with sqlite3.connect(root / "mlflow" / "store" / "mlflow.db") as connection:  # experiments name their place
        connection.execute("UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", (str(source), str(root)))
    connection.close()
    return root


@cache
def _empty() -> Path:
    """Made in a process of its own, because MLflow keeps its connections open, and tests fork."""
    folder = Path(tempfile.mkdtemp(prefix="recompress-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    worker = Child(target=_make, args=(folder,))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    return folder


def _make(folder: Path) -> None:
    assert Store(folder).experiment
