"""MLflow tracking: one parent run for a recompression, one child for each model, and the memory of finished steps.

A finished step is a tag ``step.<key>`` on the run that did it. The tag names a small JSON artifact with the step's result and the digests of every artifact
that belongs to it; the tag is written last, so a killed step leaves no trace that anyone would believe. Whoever recalls a step hashes what it names first.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from recompress.digest import canonical_json, check_directory, sha256_bytes, sha256_directory, sha256_file
from recompress.errors import IntegrityError, StorageError
from recompress.recipe import Plan

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
EXPERIMENT = "recompress"
Result = dict[str, Any]


class Store:
    """Where MLflow keeps runs and artifacts: a SQLite file and a folder below ``mlflow/store``, or the server that ``MLFLOW_TRACKING_URI`` names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "mlflow" / "store"
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"
        self.is_local = self.uri.startswith("sqlite")
        self._client: MlflowClient | None = None
        self._experiment: str | None = None

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            self._open()
        assert self._client is not None
        return self._client

    @property
    def experiment(self) -> str:
        _ = self.client
        assert self._experiment is not None
        return self._experiment

    def _open(self) -> None:
        """Make the store on first use, one process at a time: four processes that create one new database crash each other."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            with locked(self.folder / "made.lock") if self.is_local else _nothing():
                client = MlflowClient(self.uri, registry_uri=self.uri)
                found = client.get_experiment_by_name(EXPERIMENT)
                place = (self.folder / "artifacts").as_uri() if self.is_local else None
                self._experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=place)
                self._client = client
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            way_out = "check that the folder can be written and has space" if self.is_local else "check MLFLOW_TRACKING_URI and that the server runs"
            raise StorageError(f"the MLflow store {self.uri} cannot be opened ({reason}); {way_out}") from None

    def fetch(self, uri: str) -> Path:
        """An artifact as a local path. In a local store that is the stored file itself: read it, never write it."""
        if uri.startswith("file://") or uri.startswith("/"):
            return Path(uri.removeprefix("file://"))
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(artifact_uri=uri, tracking_uri=self.uri))


class Recompression:
    """One recompression as it runs. Its MLflow runs are opened when the first step has to be done: where all is found again, nothing is added."""

    def __init__(self, root: Path, plan: Plan, *, say: Callable[[str], None] = log.info) -> None:
        self.root = root
        self.plan = plan
        self.store = Store(root)
        self.work = root / ".recompress" / "work"
        self.say = say
        self.done: list[str] = []
        self.reused: list[str] = []
        self._runs: dict[str, str] = {}

    def run_of(self, name: str) -> str:
        """The MLflow run of a model (``baseline`` or a variant), or of the whole recompression (``""``)."""
        if name not in self._runs:
            parent = self.run_of("") if name else None
            tags = {"recompress.recipe": self.plan.recipe.name, "recompress.host": socket.gethostname(), "recompress.pid": str(os.getpid())}
            tags |= {"mlflow.parentRunId": parent, "recompress.model": name} if parent else {"recompress.recipe_sha256": self.plan.sha256}
            if not parent:
                self._close_orphans()
            created = self.store.client.create_run(self.store.experiment, run_name=name or self.plan.recipe.name, tags=tags)
            self._runs[name] = created.info.run_id
        return self._runs[name]

    @property
    def started(self) -> bool:
        return "" in self._runs

    def finish(self, status: str = "FINISHED") -> None:
        for run_id in self._runs.values():
            self.store.client.set_terminated(run_id, status)

    def step(self, name: str, *, key: str, run: str, do: Callable[[Path], tuple[Result, dict[str, Path]]], label: str = "") -> Result:
        """The result of a step: found again by its key, or done now and remembered.

        ``do(folder)`` works in a folder of its own, which outlives a kill, and returns the result and the files or directories to keep, by name. The result
        comes back with ``artifacts``: for each name its uri and sha256.
        """
        found = self.recall(key)
        if found is not None:
            self.reused.append(name)
            self.say(f"{name}: found again")
            return found
        self.say(f"{name}: {label or 'working'}")
        folder = self.work / key[:24]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            result, files = do(folder)
            kept = self._keep(run, name, key, result, files)
        except OSError as error:
            if error.errno in (28, 30, 13):
                raise StorageError(f"{name}: {error.strerror} at {error.filename or folder}; free some space or allow writing there, then run again") from None
            raise
        shutil.rmtree(folder, ignore_errors=True)
        self.done.append(name)
        return kept

    def recall(self, key: str) -> Result | None:
        """The result of a finished step, if all its artifacts still are what they were."""
        for run in self.store.client.search_runs([self.store.experiment], f"tags.`step.{key}` LIKE '%'", max_results=5):
            place, _, digest = run.data.tags[f"step.{key}"].partition("#")
            try:
                data = self.store.fetch(f"{run.info.artifact_uri}/{place}").read_bytes()
                if sha256_bytes(data) != digest:
                    raise IntegrityError(f"{place} was altered")
                result: Result = json.loads(data)
                for kept in result["artifacts"].values():
                    check(self.store.fetch(kept["uri"]), kept["sha256"])
                return result
            except (OSError, IntegrityError, ValueError, KeyError) as error:
                self.say(f"a stored result is not what it was, so its step runs again: {error}")
        return None

    def _keep(self, run: str, name: str, key: str, result: Result, files: dict[str, Path]) -> Result:
        run_id = self.run_of(run)
        client = self.store.client
        top = f"steps/{name.split('/')[-1].replace(' ', '_')}-{key[:8]}"
        home = client.get_run(run_id).info.artifact_uri
        artifacts = {}
        for label, path in files.items():
            digest = sha256_directory(path) if path.is_dir() else sha256_file(path)
            if path.is_dir():
                client.log_artifacts(run_id, str(path), f"{top}/{label}")
            else:
                client.log_artifact(run_id, str(path), f"{top}/{label}")
            uri = f"{home}/{top}/{label}" + ("" if path.is_dir() else f"/{path.name}")
            check(self.store.fetch(uri), digest)
            artifacts[label] = {"uri": uri, "sha256": digest}
        kept = {**result, "artifacts": artifacts, "run_id": run_id}
        data = canonical_json(kept)
        note = self.work / key[:24] / "step.json"
        note.write_bytes(data)
        client.log_artifact(run_id, str(note), top)
        client.set_tag(run_id, f"step.{key}", f"{top}/step.json#{sha256_bytes(data)}")
        return kept

    def _close_orphans(self) -> None:
        """Runs of processes of this machine that are no more, killed in the middle, must not look as if they still ran."""
        here = f"attributes.status = 'RUNNING' and tags.`recompress.host` = '{socket.gethostname()}'"
        for run in self.store.client.search_runs([self.store.experiment], here):
            if not psutil.pid_exists(int(run.data.tags["recompress.pid"])):
                self.store.client.set_terminated(run.info.run_id, "KILLED")


def check(path: Path, sha256: str) -> None:
    """Raises ``IntegrityError`` when a file or a directory is not what its digest says."""
    if path.is_dir():
        check_directory(path, sha256)
    elif not path.is_file():
        raise IntegrityError(f"{path.name} is missing")
    elif sha256_file(path) != sha256:
        raise IntegrityError(f"{path.name} has another sha256 than when it was stored")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock; the operating system lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield
