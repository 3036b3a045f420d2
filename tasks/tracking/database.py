"""Whether an MLflow server keeps its runs in SQLite, which it says nowhere: asked by what only the other databases do.

A backslash in a pattern of LIKE makes the next letter stand for itself in PostgreSQL and MySQL; in SQLite it is a letter like others, because there is no escape
unless the question names one. So ``Def\\ault`` finds the experiment ``Default``, which every server has, or it does not. Nothing is written.

Sources: PostgreSQL documentation, "LIKE"; SQLite documentation, "The LIKE, GLOB, REGEXP, MATCH, and extract operators".
"""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import ViewType

from tasks.tracking.track import Store


def keeps_runs_in_sqlite(store: Store) -> bool | None:
    """``None`` where it cannot be told: there is no experiment ``Default``. Raises ``StorageError`` where the server does not answer."""
    if store.is_local:
        return True
    with store.refusing():
        client = MlflowClient(store.uri)
        if not _finds(client, "Default"):
            return None
        return not _finds(client, r"Def\ault")


def _finds(client: MlflowClient, pattern: str) -> bool:
    return bool(client.search_experiments(view_type=ViewType.ALL, max_results=1, filter_string=f"name ILIKE '{pattern}'"))
