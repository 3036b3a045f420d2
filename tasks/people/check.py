"""The door that checks from outside: a version is held against the ledger, and copied to where nobody else writes, before anything of it is imported.

What a version carries to check itself is code of that version: whoever can write to the artifact store can replace the check together with what it checks.

    python -m tasks.people.check ROOT REFERENCE TARGET

does the same in a process of its own and tells on stdout, as JSON, what it checked or why not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recompress.errors import IntegrityError, RecompressError, StorageError, as_raised, kind_of
from tasks.running.servers import die_with_parent, end_group

if TYPE_CHECKING:
    from tasks.running.project import Project

COMMAND = ("-P", "-m", "tasks.people.check")
LOOK_S = 0.2


class Stopped(Exception):
    """Whoever waits for the check was told to end."""


class Checked(NamedTuple):
    """A version whose every file is what the ledger promoted."""

    model: str
    version: str
    manifest_sha256: str
    record: int
    """The ledger's record of its promotion."""
    folder: Path
    """Where its files were read, or copied to."""

    def as_json(self) -> dict[str, str | int]:
        return {**self._asdict(), "folder": str(self.folder)}

    @property
    def told(self) -> str:
        return f"{self.model} version {self.version}: every file is what record {self.record} of the ledger promoted (manifest {self.manifest_sha256})"


def check(project: Project, reference: str, target: Path | None = None) -> Checked:
    """Hash a version against the ledger; with ``target``, copy it there while it is hashed, whole or not at all.

    Raises ``InputError`` for a version that was never promoted, and ``IntegrityError`` for an alias that the ledger did not move and for the first file that is
    not what was promoted. Nothing of the version is run.
    """
    from recompress.audit import find_plan
    from recompress.integrity.atomic_directory import new_directory
    from recompress.integrity.model_files import check_version, take_out
    from recompress.promotion import champion_by_ledger
    from tasks.tracking.reading import means_alias

    model, version = project.resolve(reference)
    known = champion_by_ledger(project.ledger, model)
    if means_alias(reference) and version != known:
        was = f"version {known}" if known else "none"
        raise IntegrityError(f"the alias champion of {model} names version {version}, but by the ledger it is {was}; `recompress audit verify` tells more")
    committed = find_plan(project.ledger.entries(), model, version).entries[-1]
    manifest = str(committed.body["manifest_sha256"])
    directory = project.registry.fetch(model, version)
    if target is None:
        check_version(directory, manifest)
        return Checked(model, version, manifest, committed.sequence, directory)
    with new_directory(target) as place:
        take_out(directory, manifest, place)
    return Checked(model, version, manifest, committed.sequence, target)


def check_apart(root: Path, reference: str, target: Path, stopped: Callable[[], bool]) -> Checked:
    """``check`` with a copy, in a process of its own: what it takes to read a ledger and to ask a registry is gone from memory when it ends.

    Raises what ``check`` raises, ``StorageError`` where that process fails, and ``Stopped`` as soon as ``stopped`` says so.
    """
    command = [sys.executable, *COMMAND, str(root), reference, str(target)]
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent
    )
    try:
        while True:
            try:
                out, _ = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    raise Stopped from None
    finally:
        end_group(process)
    return _read(out, process.returncode)


def _read(out: bytes, code: int) -> Checked:
    try:
        told: dict[str, Any] = json.loads(out)
    except ValueError:
        raise StorageError(f"the check of the version ended with code {code} and without a word; `recompress audit check` shows why") from None
    if "error" in told:
        raise as_raised(told["kind"], told["error"]) or StorageError(told["error"])
    return Checked(**{**told, "folder": Path(told["folder"])})


def main(root: Path, reference: str, target: Path) -> None:
    """Check, and tell how it ended."""
    from tasks.running.project import Project

    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not what is told
    try:
        told: dict[str, Any] = check(Project(root), reference, target).as_json()
    except RecompressError as error:
        told = {"error": str(error), "kind": kind_of(error)}
    channel.write(json.dumps(told))
    channel.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
