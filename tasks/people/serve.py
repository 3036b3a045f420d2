"""The door that checks from outside: a version is held against the ledger, and copied to where nobody else writes, before anything of it is imported.

What a version carries to check itself is code of that version: whoever can write to the artifact store can replace the check together with what it checks.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from recompress.audit import find_plan
from recompress.errors import IntegrityError, StorageError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.model_files import check_version, take_out
from recompress.promotion import champion_by_ledger
from tasks.running.project import Project, means_alias
from tasks.running.servers import SIGNALS, die_with_parent, end_group, noted_signals


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


def check(project: Project, reference: str, target: Path | None = None) -> Checked:
    """Hash a version against the ledger; with ``target``, copy it there while it is hashed, whole or not at all.

    Raises ``InputError`` for a version that was never promoted, and ``IntegrityError`` for an alias that the ledger did not move and for the first file that is
    not what was promoted. Nothing of the version is run.
    """
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


def serve_model(project: Project, reference: str, host: str, port: int, say: Callable[[str], None]) -> int:
    """Check a version, serve the checked copy with MLflow's own server until a signal comes, and give the exit code that belongs to it. Raises ``StorageError``."""
    _check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="recompress-serve-") as private:  # mode 0700
        checked = check(project, reference, Path(private) / "version")
        say(
            f"{checked.model} version {checked.version}: every file is what record {checked.record} of the ledger promoted (manifest {checked.manifest_sha256})"
        )
        with noted_signals() as ended, _server(checked, host, port, Path(private)) as process:
            if _answers(process, host, port, ended):
                say(f"it answers at http://{host}:{port}/invocations, until Ctrl-C; restart it after the next promotion")
            while not ended and process.poll() is None:
                time.sleep(0.1)
            if not ended:
                last = (Path(private) / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise StorageError(
                    f"the server stopped with code {process.returncode} ({' '.join(last)[:160]}); `recompress predict {reference}` asks the model without it"
                )
    say(SIGNALS[ended[0]])
    return 128 + ended[0]


def _check_free(host: str, port: int) -> None:
    """Raises ``StorageError`` for an address that cannot be listened on: whoever listens there already would seem to be the model."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise StorageError(f"nothing can listen on {host}:{port} ({error.strerror}); choose another port with --port") from None


@contextmanager
def _server(checked: Checked, host: str, port: int, private: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's scoring server over the copy, in a process group of its own that is ended as a whole."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(checked.folder), "--env-manager", "local", "--host", host, "--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RECOMPRESS_SERVE_UNVERIFIED")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = inherited | {"PATH": path, "RECOMPRESS_SERVE_MANIFEST": checked.manifest_sha256}
    with (private / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=private, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
        )
    try:
        yield process
    finally:
        end_group(process)


def _answers(process: subprocess.Popen[bytes], host: str, port: int, ended: list[signal.Signals]) -> bool:
    """Wait until the server answers; ``False`` when it has stopped, or a signal came first."""
    while not ended and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://{host}:{port}/ping", timeout=2).close()
            return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False
