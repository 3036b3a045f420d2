"""The MLflow registry as promotions see it: versions whose manifest is written last, and one alias, moved by the promoter only.

MLflow calls a version READY whatever its files are, and moves an alias for whoever asks. So a version is made here only when its files are all there, and it is
hashed against its manifest before anybody believes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from recompress.errors import InputError, IntegrityError, StorageError
from recompress.integrity.model_files import MANIFEST_FILE, MODEL_FOLDER, check_version, write_manifest
from recompress.ledger import Ledger
from recompress.promotion import HEAD_TAG, MANIFEST_TAG, MODEL_TAG, PLAN_TAG
from recompress.promotion.registry import unannounced
from tasks.ledger.access import ledger_if_any
from tasks.ledger.anchors import check_alias, sound_ledger
from tasks.tracking.model_version import write_version
from tasks.tracking.reading import KeptVersion, absent_is_none
from tasks.tracking.track import Store

ALIAS = "champion"
PLACE = "version"
"""The folder of a version below its run's artifacts."""

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # a server that is gone is named after seconds, not after minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


class Found(NamedTuple):
    """A registered version as others use it."""

    version: str
    model_sha256: str
    tags: dict[str, str]
    model_uri: str
    """Its model directory; ``Store.fetch`` brings it."""


class MlflowRegistry:
    """``recompress.promotion.ModelRegistry`` over MLflow. ``crash_point`` is for the tests."""

    def __init__(self, store: Store, *, crash_point: Callable[[str], None] = lambda name: None) -> None:
        self.store = store
        self.crash_point = crash_point

    @property
    def shared(self) -> bool:
        return not self.store.is_local

    def heads(self) -> dict[tuple[str, str], str]:
        if not self.store.exists:
            return {}
        with self.store.refusing():
            versions = self.store.reader.versions()
        return {(version.model, version.version): version.tags[HEAD_TAG] for version in versions if HEAD_TAG in version.tags}

    def champion(self, model: str) -> str | None:
        found = self.with_alias(model, ALIAS)
        return None if found is None else found.version

    def with_alias(self, model: str, alias: str) -> KeptVersion | None:
        with self.store.refusing():
            return self.store.reader.with_alias(model, alias)

    def version(self, model: str, version: str) -> KeptVersion | None:
        with self.store.refusing():
            return self.store.reader.version(model, version)

    def create_version(self, model: str, directory: Path, tags: Mapping[str, str], announce: Callable[[str], None] = unannounced) -> str:
        with self.store.refusing(), self._workplace() as folder:
            root = folder / PLACE
            write_version(directory, root)
            manifest = write_manifest(root)
            announce(manifest)
            place, run = self._upload(model, root, tags)
            if absent_is_none(lambda: self.store.client.get_registered_model(model)) is None:
                self.store.client.create_registered_model(model)
            version = self.store.client.create_model_version(model, place, run, tags={**tags, MANIFEST_TAG: manifest})
            self.store.client.set_terminated(run, "FINISHED")
        return str(version.version)

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        """An empty folder. Versions are made under the ledger's lock, so whatever lies there was left by a process that was killed."""
        folder = self.store.root / ".recompress" / "register"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, model: str, root: Path, tags: Mapping[str, str]) -> tuple[str, str]:
        """Into a run of its own, the manifest last: what was cut off has none. Gives the version's uri and the run's id."""
        client = self.store.client
        run = self.store.open_run(f"register {model}", {PLAN_TAG: tags.get(PLAN_TAG, ""), "recompress.registered": model})
        manifest = (root / MANIFEST_FILE).rename(root.parent / MANIFEST_FILE)
        client.log_artifacts(run, str(root), PLACE)
        self.crash_point("registry:half-uploaded")
        place = f"{client.get_run(run).info.artifact_uri}/{PLACE}"
        self.store.flush(place)
        client.log_artifact(run, str(manifest), PLACE)
        self.store.flush(f"{place}/{MANIFEST_FILE}")
        self.crash_point("registry:uploaded")
        return place, run

    def find_version(self, model: str, plan: str) -> str | None:
        with self.store.refusing():
            versions = self.store.reader.versions(model)
        return next((version.version for version in versions if version.tags.get(PLAN_TAG) == plan), None)

    def versions(self, model: str) -> list[str]:
        with self.store.refusing():
            return [version.version for version in self.store.reader.versions(model)]

    def rows(self, model: str, version: str) -> dict[str, str]:
        registered = self.version(model, version)
        if registered is None:
            return {}
        return {"run": registered.run, "source": self.store.relative(registered.source), "served_from": self.store.relative(registered.served_from)}

    def tags(self, model: str, version: str) -> dict[str, str] | None:
        registered = self.version(model, version)
        return None if registered is None else dict(registered.tags)

    def set_tag(self, model: str, version: str, name: str, value: str) -> None:
        with self.store.refusing():
            self.store.client.set_model_version_tag(model, version, name, value)

    def fetch(self, model: str, version: str) -> Path:
        registered = self.version(model, version)
        if registered is None:
            raise IntegrityError(f"version {version} of {model} is not in the registry")
        if not registered.source:
            raise IntegrityError(f"version {version} of {model} has no files: it was registered without any")
        if self.store.relative(registered.served_from) != self.store.relative(registered.source):
            raise IntegrityError(
                f"version {version} of {model} was registered from {registered.source}, but MLflow would serve it from {registered.served_from}: somebody changed its storage place; "
                "put it back in MLflow's database"
            )
        try:
            directory = self.store.fetch(registered.source)
        except StorageError as error:
            raise IntegrityError(f"the files of version {version} of {model} cannot be fetched: {error}") from None
        if not directory.is_dir():
            raise IntegrityError(
                f"version {version} of {model} has no files at {registered.source}; put them back, or recompress rollback {model} to one that has them"
            )
        return directory

    def move_champion(self, model: str, version: str | None) -> None:
        with self.store.refusing():
            if version is None:
                self.store.client.delete_registered_model_alias(model, ALIAS)
            else:
                self.store.client.set_registered_model_alias(model, ALIAS, version)


def open_registry(store: Store) -> MlflowRegistry:
    return MlflowRegistry(store)


def champion_of(store: Store, model: str) -> Found | None:
    """The version in production, or ``None``. Raises ``IntegrityError`` for one that was not made here: nothing is known of its bytes."""
    registry = MlflowRegistry(store)
    version = registry.champion(model)
    registered = registry.version(model, version) if version is not None else None
    if registered is None:
        return None
    if MODEL_TAG not in registered.tags:
        raise IntegrityError(
            f"version {version} of {model} is champion, but was not made here; recompress rollback {model} --reason '…' puts one back that was"
        )
    return Found(registered.version, registered.tags[MODEL_TAG], dict(registered.tags), f"{registered.source}/{MODEL_FOLDER}")


def fetch_model(store: Store, uri: str, ledger: Ledger | None = None) -> Path:
    """The model directory of ``models:/name@alias`` or ``models:/name/version``, hashed against its manifest, and that against the ledger where it knows it.

    Raises ``InputError`` when there is none, and ``IntegrityError``.
    """
    registry = MlflowRegistry(store)
    if ledger is not None and uri.endswith(f"@{ALIAS}"):
        check_alias(ledger, registry, uri.removeprefix("models:/").removesuffix(f"@{ALIAS}"))
    name, version = version_of(registry, uri)
    tags = registry.tags(name, version) or {}
    committed = ledger.last("promotion-committed", model=name, version=version) if ledger else None
    expected = committed.body["manifest_sha256"] if committed else tags.get(MANIFEST_TAG)
    if ledger is not None and committed is None and "@" in uri:
        raise IntegrityError(f"version {version} of {name} has the alias, but this ledger promoted no such version; `recompress audit verify` tells more")
    if expected is None:
        raise IntegrityError(f"version {version} of {name} has no tag {MANIFEST_TAG}, so its files cannot be checked; it was not made here")
    directory = registry.fetch(name, version)
    check_version(directory, expected)
    return directory / MODEL_FOLDER


def load_for_prediction(store: Store, root: Path, model: str) -> Callable[..., list[dict[str, Any]]]:
    """A model folder, or a registered model by ``name``, ``name@alias`` or ``name/version``, ready to answer lines, or lines about a context; registered ones are
    checked by the ledger.

    A model of language that can continues each line, by so many ``tokens`` at most (``plain``: without its chat template), or says what it costs, for 0. Every
    answer also has a ``summary`` in one line.
    """
    from recompress.predict import WRITTEN, Predictor, rows_of, summary

    folder = Path(model)
    if folder.is_dir():
        directory = folder
    else:
        registry = MlflowRegistry(store)
        # whoever only asks models of a shared server needs no ledger; a store of this project's own had one
        ledger = sound_ledger(root, registry) if not registry.shared or ledger_if_any(root) else None
        directory = fetch_model(store, f"models:/{model}" if "@" in model or "/" in model else f"models:/{model}@{ALIAS}", ledger)
    predictor = Predictor(directory)

    def ask(lines: Sequence[str], context: str | None = None, tokens: int | None = None, plain: bool = False) -> list[dict[str, Any]]:
        if tokens or (tokens is None and predictor.writes):
            answers = predictor.continue_text(lines, tokens or WRITTEN, plain=plain)
        else:
            answers = predictor(rows_of(lines, predictor.columns, context))
        return [{**answer, "summary": summary(answer)} for answer in answers]

    return ask


def version_of(registry: MlflowRegistry, uri: str) -> tuple[str, str]:
    """Name and version that a ``models:/`` uri means. Raises ``InputError``."""
    reference = uri.removeprefix("models:/")
    name, at, alias = reference.partition("@")
    if at:
        registered = registry.with_alias(name, alias)
        if registered is None:
            way_out = f"a version is asked for as {name}/{alias}" if alias.isdigit() else "recompress run makes one"
            raise InputError(f"there is no model {name!r} with the alias {alias!r} in {registry.store.uri}; {way_out}")
        return name, registered.version
    name, slash, version = reference.rpartition("/")
    if not slash or not version.isdigit() or registry.version(name, version) is None:
        raise InputError(f"there is no model {reference!r} in {registry.store.uri}; give name@alias or name/version")
    return name, version
