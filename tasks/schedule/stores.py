"""PostgreSQL under everything that runs on a schedule: workers on several machines, and runs that begin while others write, are what SQLite has no room for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from recompress.errors import InputError
from tasks.ledger.access import ledger_place
from tasks.tracking.track import Store

LEDGER, MLFLOW = "RECOMPRESS_LEDGER", "MLFLOW_TRACKING_URI"
FIRST = "a schedule needs PostgreSQL"


def check_stores(root: Path) -> None:
    """Raises ``InputError`` where the ledger or the runs are kept in SQLite, as far as this process's environment says, and ``StorageError`` where MLflow is silent."""
    place = ledger_place(root)
    if not re.match(r"postgres(ql)?(\+\w+)?://", place):
        named = f"{LEDGER} is {place!r}" if os.environ.get(LEDGER) else f"{LEDGER} is not set"
        raise InputError(f"{FIRST}, and {named}, so the ledger is SQLite ({place}); set {LEDGER}=postgresql://USER@HOST/DATABASE")
    store = Store(root)
    way = f"mlflow server --backend-store-uri postgresql+psycopg://… --artifacts-destination FOLDER, and {MLFLOW}=http://HOST:PORT"
    if store.is_local:
        named = f"{MLFLOW} is {store.uri}" if os.environ.get(MLFLOW) else f"{MLFLOW} is not set"
        raise InputError(f"{FIRST}, and {named}, so MLflow's runs are in SQLite ({store.uri}); {way}")
    from tasks.tracking.database import keeps_runs_in_sqlite

    if keeps_runs_in_sqlite(store):
        raise InputError(f"{FIRST}, and the MLflow server that {MLFLOW} names, {store.uri}, keeps its runs in SQLite; {way}")
