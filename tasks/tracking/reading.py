"""What MLflow's registry and runs hold, read without changing anything: through its client, or straight from the rows of a local store.

MLflow's client takes two seconds of the processor to import before it answers. Its local store is an SQLite file whose tables are known, so a question about it
is a query. Rows are read only while the database has the tables of the MLflow that this project is tested with; any other is left to the client.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLES = "dc11669786a5"
"""The revision of the tables that the queries below are written for, as MLflow notes it in its database."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such run, model, version or alias."""
REFUSED = "PERMISSION_DENIED"
"""What a server with logins says instead, of runs and versions alike, to everybody but its admin."""
HERE = "workspace = 'default'"
"""MLflow may keep several workspaces in one database; a project's is the one that has no name."""
STEP = "step."
"""How the names of tags begin that say what a run did."""


@dataclass(frozen=True)
class KeptVersion:
    """A registered version."""

    model: str
    version: str
    run: str
    """The run that it was uploaded in; empty where it names none."""
    source: str
    served_from: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class KeptRun:
    """A run that was not deleted."""

    id: str
    name: str
    home: str
    """The uri below which its artifacts lie."""
    tags: Mapping[str, str]


class Reader(Protocol):
    """The questions. What is not there is ``None``."""

    def with_alias(self, model: str, alias: str) -> KeptVersion | None: ...

    def version(self, model: str, version: str) -> KeptVersion | None: ...

    def versions(self, model: str = "") -> list[KeptVersion]:
        """Every version of a model, or of all models, in order."""

    def home_of(self, run: str) -> str | None:
        """The uri below which a run's artifacts lie; of deleted ones too."""

    def runs(self, experiment: str, step: str = "") -> list[KeptRun]:
        """The runs of an experiment that were not deleted, or those of them whose tags say that they did a step."""


class ClientReader:
    """Asks MLflow."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def with_alias(self, model: str, alias: str) -> KeptVersion | None:
        return self._whole(self._of_model(model, lambda: self.client.get_model_version_by_alias(model, alias)))

    def version(self, model: str, version: str) -> KeptVersion | None:
        return self._whole(self._of_model(model, lambda: self.client.get_model_version(model, version)))

    def versions(self, model: str = "") -> list[KeptVersion]:
        found = pages(lambda page: self.client.search_model_versions(f"name = '{model}'" if model else None, page_token=page))
        return sorted((version for version in map(self._whole, found) if version), key=lambda one: (one.model, int(one.version)))

    def home_of(self, run: str) -> str | None:
        found = absent_is_none(lambda: self.client.get_run(run), REFUSED)  # what may not be read is as good as gone: the step is done again
        return None if found is None else str(found.info.artifact_uri)

    def runs(self, experiment: str, step: str = "") -> list[KeptRun]:
        wanted = f"tags.`{STEP}{step}` LIKE '%'" if step else ""
        known = self.client.get_experiment_by_name(experiment)
        found = pages(lambda page: self.client.search_runs([known.experiment_id], wanted, page_token=page)) if known else []
        return [KeptRun(run.info.run_id, run.info.run_name, run.info.artifact_uri, dict(run.data.tags)) for run in found]

    def _of_model(self, model: str, ask: Callable[[], Any]) -> Any:
        """What is asked about a model that may not be there: refused, it is asked for itself, of which such a server tells the truth."""
        from mlflow.exceptions import MlflowException

        try:
            return absent_is_none(ask)
        except MlflowException as error:
            if error.error_code != REFUSED or absent_is_none(lambda: self.client.get_registered_model(model)) is not None:
                raise
        return None

    def _whole(self, found: Any) -> KeptVersion | None:
        if found is None:
            return None
        served = absent_is_none(lambda: self.client.get_model_version_download_uri(found.name, found.version))
        return KeptVersion(found.name, str(found.version), found.run_id or "", found.source or "", served or "", dict(found.tags))


class RowReader:
    """Reads the tables of a local store."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def with_alias(self, model: str, alias: str) -> KeptVersion | None:
        with self._rows() as rows:
            if not rows(f"SELECT 1 FROM registered_models WHERE name = ? AND {HERE}", model):
                return None  # an alias may be left over; MLflow asks for the model first
            found = rows(f"SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ? AND {HERE}", model, alias)
        if alias.lower() == "latest":  # MLflow's own word, which nobody sets
            return next(reversed(self.versions(model)), None)
        return self.version(model, str(found[0][0])) if found else None

    def version(self, model: str, version: str) -> KeptVersion | None:
        return next((one for one in self.versions(model) if one.version == version), None)

    def versions(self, model: str = "") -> list[KeptVersion]:
        tags: dict[tuple[str, int], dict[str, str]] = {}
        with self._rows() as rows:
            wanted = f"WHERE ? IN (name, '') AND {HERE}"
            for name, number, key, value in rows(f"SELECT name, version, key, value FROM model_version_tags {wanted}", model):
                tags.setdefault((name, number), {})[key] = value or ""
            there = f"{wanted} AND current_stage <> 'Deleted_Internal' ORDER BY name, version"
            found = rows(f"SELECT name, version, run_id, source, storage_location FROM model_versions {there}", model)
            registered = {name for (name,) in rows(f"SELECT name FROM registered_models WHERE {HERE}")}  # MLflow serves nothing of a model without a row
        return [
            KeptVersion(name, str(number), run or "", source or "", (served or source or "") if name in registered else "", tags.get((name, number), {}))
            for name, number, run, source, served in found
        ]

    def home_of(self, run: str) -> str | None:
        with self._rows() as rows:
            found = rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run)
        return str(found[0][0]) if found else None

    def runs(self, experiment: str, step: str = "") -> list[KeptRun]:
        chosen = f"SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ? AND experiments.{HERE}"
        chosen += " AND runs.lifecycle_stage = 'active'"
        wanted = [experiment]
        if step:
            chosen, wanted = f"{chosen} AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ?)", [experiment, f"{STEP}{step}"]
        tags: dict[str, dict[str, str]] = {}
        with self._rows() as rows:
            for run, key, value in rows(f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({chosen})", *wanted):
                tags.setdefault(run, {})[key] = value or ""
            found = rows(f"SELECT run_uuid, name, artifact_uri FROM runs WHERE run_uuid IN ({chosen}) ORDER BY start_time DESC, run_uuid", *wanted)
        return [KeptRun(run, name or "", home, tags.get(run, {})) for run, name, home in found]

    @contextmanager
    def _rows(self) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            connection.execute("BEGIN")  # all that is asked in here is of one moment
            yield lambda query, *values: connection.execute(query, values).fetchall()


def knows_tables(database: Path) -> bool:
    """Whether the rows of a local store can be read as they are."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(TABLES,)]
    except sqlite3.Error:
        return False  # what is wrong with it is told by MLflow, which whoever asks goes on to


def means_alias(reference: str) -> bool:
    """Whether ``name`` or ``name@champion`` is asked for, and not a version by its number."""
    _, at, version = reference.replace("/", "@", 1).partition("@")
    return not at or version == "champion"


def pages(ask: Callable[[Any], Any]) -> Iterable[Any]:
    """What MLflow gives in pages."""
    found, page = list[Any](), None
    while page != "":
        some = ask(page)
        found, page = [*found, *some], some.token or ""
    return found


def absent_is_none(ask: Callable[[], Any], *also: str) -> Any:
    """What MLflow answers, ``None`` where it says that there is no such thing, or one of ``also``."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in (*ABSENT, *also):
            return None
        raise
