"""A project that an earlier version ran.

``project-1`` holds two promotions of the toy project (version 2 is champion), made at commit 5ed767d in ``/srv/toy`` and packed without the artifacts of steps.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

PACKED = Path(__file__).parent.parent / "golden" / "project-1.tar.xz"
PLACES = (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location"))
"""Where MLflow's database names the folder that the project was made in."""


def unpack_project(root: Path) -> Path:
    """The project at ``root``, as if it had been made there."""
    with tarfile.open(PACKED) as archive:
        archive.extractall(root, filter="data")
    with sqlite3.connect(root / "mlflow" / "store" / "mlflow.db") as database:
        for table, column in PLACES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, '/srv/toy', ?)", (str(root),))
    database.close()
    return root
