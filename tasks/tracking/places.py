"""Folders as URLs and back, and a local store that was moved with its project.

MLflow keeps absolute places in its database: of the experiment, of every run, of every version. They are believed only as far as the store lies where it lay
when they were written; where the project's folder was moved, copied or restored, they are brought up to date before anything else is done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recompress.errors import InputError

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Where MLflow's tables hold places of files."""


def path_of(uri: str) -> Path | None:
    """The local path that a ``file:`` URL or an absolute path means; ``None`` for what lies elsewhere. A URL escapes spaces, umlauts and percent signs."""
    if uri.startswith("/"):
        return Path(uri)
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else None


def sqlite_url(file: Path) -> str:
    """The URL by which SQLAlchemy opens an SQLite file. Raises ``InputError`` for the one character that it cannot hold."""
    if "?" in str(file):
        raise InputError(f"the folder {file.parent} has a question mark in its name, and a database's URL ends there; rename the folder, or move the project")
    return f"sqlite:///{file}"


def former_home(database: Path, experiment: str, place: str) -> str | None:
    """Where the experiments called ``experiment`` (or ``experiment/NAME``) lay when they were made, without a slash at its end, if that is not ``place``; ``None``
    where nothing was moved or made."""
    with closing(_open(database)) as connection:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    homes = [home.rstrip("/") for name, home in rows if home and f"{name}/".startswith(f"{experiment}/")]
    return next((home for home in homes if home != place), None)


def bring_up_to_date(database: Path, before: str, now: str) -> None:
    """Every place below ``before`` becomes the same place below ``now``, in one transaction. Places elsewhere stay."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for table, column in _present(connection):
            for known in (before, str(path_of(before) or before)):
                start = len(known) + 1  # SQL counts from 1
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (now, start, known, start, f"{known}/"),
                )


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)


def _present(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The columns that this version of MLflow has."""
    for table, column in COLUMNS:
        if any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})")):
            yield table, column
