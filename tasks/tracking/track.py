"""MLflow tracking: runs, metrics, artifacts, and the memory of finished steps.

A finished step is a small JSON artifact with the step's result and the digests of every artifact that belongs to it. The ledger knows its digest before a tag
``step.<key>`` on the run names it, and it is the ledger that is believed (``tasks.tracking.memory``). Whoever reads a step hashes what it names first.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from recompress.errors import InputError, IntegrityError, StorageError, without_passwords
from recompress.integrity.digest import canonical_json, check_directory, sha256_bytes, sha256_directory, sha256_file
from recompress.integrity.durable import flush_tree
from recompress.integrity.file_lock import locked
from recompress.patience import Patience
from recompress.records import DatasetRef
from recompress.settings.file import SettingsFile
from tasks.tracking.patient_client import PatientClient, asks_for_login, is_away
from tasks.tracking.places import bring_up_to_date, former_home, path_of, sqlite_url
from tasks.tracking.reading import ClientReader, KeptRun, Reader, RowReader, knows_tables

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "recompress"
"""The experiment of a project that gives itself no name; of one that does, ``recompress/NAME``."""
Result = dict[str, Any]
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")
"""What MLflow takes for a store of runs without knowing where their files belong."""


class Store:
    """Where MLflow keeps runs and artifacts: a SQLite file and a folder below ``mlflow/store``, or the server that ``MLFLOW_TRACKING_URI`` names."""

    def __init__(self, root: Path, *, reads_only: bool = False) -> None:
        """With ``reads_only`` nothing is brought up to date where the project was moved: a copy of the database is asked instead."""
        self.root = root.resolve()
        self.reads_only = reads_only
        self.folder = self.root / "mlflow" / "store"
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(self.folder / "mlflow.db")
        self.is_local = self.uri.startswith("sqlite")
        self.is_own = self.uri == f"sqlite:///{self.folder / 'mlflow.db'}"
        """Whether nobody but this project keeps anything here."""
        if self.uri.partition("://")[0].partition("+")[0] in DATABASES:
            raise InputError(
                f"MLFLOW_TRACKING_URI is a database ({self.uri}), so files would land in the folder where somebody happens to be; give the URL of an MLflow server "
                "that keeps its runs there: mlflow server --backend-store-uri … --artifacts-destination FOLDER"
            )
        self.patience = Patience()
        """How long a server that is away is waited for, once work has begun."""
        self._opened: tuple[MlflowClient, str] | None = None
        self._reader: Reader | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to look at already. A server is taken to be there."""
        return not self.is_local or Path(self.uri.partition(":///")[2]).is_file()

    @property
    def client(self) -> MlflowClient:
        return self._open()[0]

    @property
    def experiment(self) -> str:
        return self._open()[1]

    @property
    def reader(self) -> Reader:
        """Answers what is only asked: by rows where this project's own store is there and has the tables that are known, else by MLflow's client."""
        if self._reader is None:
            self._reader = self.rows or ClientReader(self.client)
        return self._reader

    @property
    def rows(self) -> RowReader | None:
        """The rows themselves, where they can be read."""
        database = self.folder / "mlflow.db"
        by_rows = self.is_own and database.is_file() and knows_tables(database) and not former_home(database, EXPERIMENT, self._place)
        return RowReader(database) if by_rows else None

    @property
    def _place(self) -> str:
        """The uri of the folder below which a local store keeps files."""
        return (self.folder / "artifacts").as_uri()

    def _open(self) -> tuple[MlflowClient, str]:
        """Make the store on first use, one process at a time: four processes that create one new database crash each other."""
        if self._opened is None:
            from mlflow import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what is raised as well
            logging.getLogger("urllib3").setLevel(logging.ERROR)
            read_only = self.is_own and self.exists and (self._is_only_read or not os.access(self.folder, os.W_OK))
            with self.refusing(), locked(self.folder / "made.lock") if self.is_local and not read_only else nullcontext():
                name = experiment_of(self.root)
                place = self._place if self.is_local else None
                uri = self._up_to_date(read_only) if self.is_own else self.uri
                client = MlflowClient(uri, registry_uri=uri)
                if not self.is_local:
                    client = cast("MlflowClient", PatientClient(client, self.ask))
                experiment = client.get_experiment_by_name(name)
                self._opened = client, experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=place)
        return self._opened

    @property
    def _is_only_read(self) -> bool:
        """Whether nothing may be brought up to date that would have to be."""
        return self.reads_only and former_home(self.folder / "mlflow.db", EXPERIMENT, self._place) is not None

    def _up_to_date(self, read_only: bool) -> str:
        """The URL of this project's own database, its places brought up to date where the project was moved. MLflow wants to write wherever it opens one, so
        whoever may only read gets a copy that goes when the process ends."""
        database = self.folder / "mlflow.db"
        if read_only:
            private = Path(tempfile.mkdtemp(prefix="recompress-store-"))
            atexit.register(shutil.rmtree, private, ignore_errors=True)
            database = Path(shutil.copyfile(database, private / "mlflow.db"))
        if database.is_file() and (before := former_home(database, EXPERIMENT, self._place)):
            bring_up_to_date(database, before, self._place)
            if not read_only:
                log.warning(
                    "the project was moved here from %s; the places in MLflow's database are brought up to date", before.removesuffix("/mlflow/store/artifacts")
                )
        return sqlite_url(database)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn what MLflow, its database and the disk raise into one line."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, (OSError, sqlite3.Error, *_errors_of_mlflow())):
                raise
            reason = str(error).strip().splitlines()[0][:240]
            if not self.is_local and asks_for_login(error):
                way_out = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a login that may do this"
            elif not self.is_local:
                way_out = "check MLFLOW_TRACKING_URI and that the server runs"
            elif "not a database" in reason or "malformed" in reason:
                way_out = "it is damaged, so put back a copy of it"
            elif "disk is full" in reason or "No space" in reason:
                way_out = "free some space and run again"
            else:
                way_out = "allow writing there and run again"
            raise StorageError(f"the MLflow store {self.uri} cannot be used: {reason}; {way_out}") from error

    def fetch(self, uri: str) -> Path:
        """An artifact as a local path. In a local store that is the stored file itself: read it, never write it."""
        if (path := path_of(uri)) is not None:
            return path
        from mlflow.artifacts import download_artifacts

        with self.refusing():
            return self.ask(lambda: Path(download_artifacts(artifact_uri=uri, tracking_uri=self.uri)))

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What MLflow answers; a server that is away is waited for as long as patience lasts."""
        return self.patience.ask(f"the MLflow server {without_passwords(self.uri)}", question, is_away)

    def open_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """A new run below ``parent``; gives its id."""
        if self.is_own and self.exists and not os.access(self.folder, os.W_OK):
            raise StorageError(f"the MLflow store {self.folder} can only be read here, so no run can be recorded; allow writing there and run again")
        mine = {"recompress.host": socket.gethostname(), "recompress.pid": str(os.getpid())}
        with self.refusing():
            created = self.client.create_run(self.experiment, run_name=name, tags={**tags, **mine, **({"mlflow.parentRunId": parent} if parent else {})})
        return str(created.info.run_id)

    def log_dataset(self, run_id: str, dataset: DatasetRef) -> None:
        """Name the prepared splits as the run's input, by the digests that DVC and the ledger know."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"dvc": f"prepared/{dataset.name}", "md5": dataset.md5, "sha256": dataset.sha256})
        profile = json.dumps({"rows": dataset.rows, "slices": list(dataset.slices)})
        entity = Dataset(name=dataset.name, digest=dataset.md5[:36], source_type="dvc", source=source, profile=profile)
        with self.refusing():
            self.client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def close_abandoned_runs(self) -> None:
        """Runs of processes of this machine that are no more, killed in the middle, must not look as if they still ran."""
        import psutil

        filter_string = f"attributes.status = 'RUNNING' and tags.`recompress.host` = '{socket.gethostname()}'"
        for run in self.client.search_runs([self.experiment], filter_string):
            if not psutil.pid_exists(int(run.data.tags["recompress.pid"])):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def runs_with_step(self, key: str) -> list[KeptRun]:
        """The runs whose tags say that they did a step. Whether it is so, the ledger knows."""
        with self.refusing():
            return self.reader.runs(experiment_of(self.root), key)

    def runs(self) -> list[KeptRun]:
        """Every run that was not deleted."""
        with self.refusing():
            return self.reader.runs(experiment_of(self.root))

    def holds(self, home: str, place: str, sha256: str) -> bool:
        """Whether a file below a run's artifacts is there and hashes to what it should."""
        try:
            return sha256_file(self.fetch(f"{home}/{place}")) == sha256
        except (OSError, StorageError):
            return False

    def retire_step(self, key: str) -> None:
        """Tags of a step that the ledger does not know get another name, under which nobody looks for steps."""
        for run in self.runs_with_step(key):
            with self.refusing():
                self.client.set_tag(run.id, f"unknown.step.{key}", run.tags[f"step.{key}"])
                self.client.delete_tag(run.id, f"step.{key}")

    def recall_by_tag(self, key: str) -> Result | None:
        """What a tag of MLflow names as the result of a step, if its bytes are those that the tag names; whoever can write a tag can name any."""
        for run in self.runs_with_step(key):
            place, _, digest = run.tags[f"step.{key}"].partition("#")
            with suppress(OSError, IntegrityError, ValueError, KeyError):
                return self.read_step(run.id, place, digest)
        return None

    def home_of(self, run_id: str) -> str:
        """The uri at which MLflow's database says that a run keeps its artifacts. Raises ``IntegrityError`` where there is no such run."""
        with self.refusing():
            home = self.reader.home_of(run_id)
        if home is None:
            raise IntegrityError(f"run {run_id} is not in MLflow any more")
        return home

    def relative(self, uri: str) -> str:
        """A place as it stays when the project's folder is moved with all that is in it."""
        path = path_of(uri)
        return uri if path is None else path.as_posix().removeprefix(f"{self.root.as_posix()}/")

    def read_step(self, run_id: str, place: str, sha256: str) -> Result:
        """The result of a step, if it and all its artifacts hash to what they should. Raises ``IntegrityError``, ``OSError``, ``ValueError`` and ``KeyError``."""
        home = self.home_of(run_id)
        data = self.fetch(f"{home}/{place}").read_bytes()
        if sha256_bytes(data) != sha256:
            raise IntegrityError(f"{place} was altered")
        result: Result = json.loads(data)
        for artifact in result["artifacts"].values():
            artifact["uri"] = moved(artifact["uri"], home, place.rpartition("/")[0])
            check(self.fetch(artifact["uri"]), artifact["sha256"])
        return result

    def keep(
        self, run_id: str, place: str, key: str, result: Result, files: Mapping[str, Path], anchor: Callable[[str], None] = lambda _sha256: None
    ) -> Result:
        """Store a step's files and result below ``place`` of a run, read the files back, let ``anchor`` record the result's digest, and only then write the tag."""
        with self.refusing():
            artifacts = {label: self.log(run_id, path, f"{place}/{label}") for label, path in files.items()}
            stored = {**result, "artifacts": artifacts, "run_id": run_id}
            note = canonical_json(stored)
            self.client.log_text(run_id, note.decode(), f"{place}/step.json")
            self.flush(f"{self.client.get_run(run_id).info.artifact_uri}/{place}")
            anchor(sha256_bytes(note))
            self.client.set_tag(run_id, f"step.{key}", f"{place}/step.json#{sha256_bytes(note)}")
        return stored

    def flush(self, uri: str) -> None:
        """Force what was stored to the disk, before anything names it. A server sees to its own."""
        if self.is_local:
            flush_tree(self.fetch(uri), self.folder)

    def log(self, run_id: str, path: Path, place: str) -> dict[str, str]:
        """Store a file or a directory; gives its uri and sha256, checked on what was stored."""
        digest = sha256_directory(path) if path.is_dir() else sha256_file(path)
        home = self.client.get_run(run_id).info.artifact_uri
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), place)
        else:
            self.client.log_artifact(run_id, str(path), place)
        uri = f"{home}/{place}" if path.is_dir() else f"{home}/{place}/{path.name}"
        self.flush(uri)
        check(self.fetch(uri), digest)
        return {"uri": uri, "sha256": digest}


def _errors_of_mlflow() -> tuple[type[Exception], ...]:
    """What MLflow and its database raise; nothing where neither was imported, so that nobody imports them to know what they did not raise."""
    names = (("mlflow.exceptions", "MlflowException"), ("sqlalchemy.exc", "SQLAlchemyError"))
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


def moved(uri: str, home: str, folder: str) -> str:
    """Where an artifact lies that a step put below ``folder`` of its run, now that the run's artifacts lie at ``home``: the project or the server may have moved."""
    _, inside, rest = uri.rpartition(f"/{folder}/")
    return f"{home}{inside}{rest}" if inside else uri


def experiment_of(root: Path) -> str:
    """The experiment that a project's runs stand in: two projects that share a server have one each, by the name under ``project`` in ``params.yaml``."""
    file = root / "params.yaml"
    values = SettingsFile(file).values if file.is_file() else {}
    project = values.get("project") if isinstance(values, dict) else None
    if project is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,79}", str(project)):
        raise InputError(f"project is a name of at most 80 small letters, digits, and _ . -, got {project!r} ({SettingsFile(file).where(('project',))})")
    return EXPERIMENT if project is None else f"{EXPERIMENT}/{project}"


def check(path: Path, sha256: str) -> None:
    """Raises ``IntegrityError`` when a file or a directory is not what its digest says."""
    if path.is_dir():
        check_directory(path, sha256)
    elif not path.is_file():
        raise IntegrityError(f"{path.name} is missing")
    elif sha256_file(path) != sha256:
        raise IntegrityError(f"{path.name} has another sha256 than when it was stored")
