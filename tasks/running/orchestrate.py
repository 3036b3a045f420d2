"""Prefect's corner: where its database lies, how a flow is started from the command, and the servers that show what happened."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recompress.errors import InputError, StorageError
from recompress.integrity.file_lock import locked
from tasks.running.interrupt import ending_at_once
from tasks.running.lock import check_free
from tasks.running.prefect_server import check_server, named_server, put_unusable_aside, start_temporary_server
from tasks.running.recompression import listener, read_plan
from tasks.running.server_watchdog import end_server_with_this_process
from tasks.running.servers import SIGNALS, die_with_parent, end_group, noted_signals
from tasks.tracking.track import Store

SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
}
"""Prefect's own start limit of 20 s is short of what a loaded machine needs; and a server whose database is being started anew answers with 500."""
NOT_STARTED = "ephemeral Prefect API server"
"""Stands in what Prefect raises when its temporary server does not answer in time."""
ROOM = 64_000_000
"""Bytes that must be free before a run begins: two databases and the first step."""


def prepare(root: Path) -> None:
    """Prefect keeps its database below the project unless told otherwise; it may be deleted at any time."""
    os.environ.setdefault("PREFECT_HOME", str(root.resolve() / ".prefect"))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def run_flow(name: str, root: Path, say: Callable[[str], None], **parameters: Any) -> Any:
    """Run the flow ``flows.<name>`` in this process, with a temporary Prefect server unless ``PREFECT_API_URL`` names one.

    Servers of one project start one after the other: two that make one new database tell each other's errors in pages, and two that draw the same port take each
    other for their own. Raises ``StorageError``; where somebody runs the same recipe, before any server starts.
    """
    import httpx  # Prefect's client; imported with it

    prepare(root)
    Store(root)  # refuses a place that it cannot use
    _check_room(root)
    named = named_server()
    if named is not None:
        check_server(named)
    if "recipe" in parameters:
        check_free(root.resolve(), read_plan(parameters["recipe"], root.resolve()).recipe.name)
    with ending_at_once(), listener(say):
        try:
            if named is None:
                _start_server(root, say)
            flow = getattr(importlib.import_module(f"flows.{name}"), name)
            return flow(root=str(root), **parameters)
        except httpx.HTTPError as error:
            if named is None:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StorageError(f"the Prefect server {named.url} went away: {reason}; what was done is kept, so run again when it is back") from None
        except RuntimeError as error:
            if NOT_STARTED not in str(error):
                raise
            raise StorageError(
                f"Prefect's temporary server did not start; what it says: PREFECT_HOME={os.environ['PREFECT_HOME']} {Path(sys.executable).name} -m prefect server start"
            ) from None


def _start_server(root: Path, say: Callable[[str], None]) -> None:
    """Prefect's temporary server, which ends with this process. Raises ``RuntimeError`` where it does not answer in time."""
    home = Path(os.environ["PREFECT_HOME"])
    with locked(root / ".recompress" / "prefect.lock"):
        put_unusable_aside(home, own=home.resolve() == (root / ".prefect").resolve(), say=say)
        end_server_with_this_process()
        start_temporary_server()


def _check_room(root: Path) -> None:
    """Raises ``StorageError`` on a disk that is as good as full: servers that cannot write their databases end in pages of tracebacks of their own."""
    free = shutil.disk_usage(root).free
    if free < ROOM:
        raise StorageError(f"{free / 1e6:.1f} MB are free at {root.resolve()}, and a run does not begin with less than {ROOM / 1e6:.0f} MB; make space")


def serve_pages(root: Path, host: str, prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> int:
    """Start both servers, wait for a signal, and give the exit code that belongs to it. Ends only what it started, and all of that."""
    prepare(root)
    os.environ["PREFECT_UI_API_URL"] = f"http://{host}:{prefect_port}/api"  # the page asks port 4200 otherwise
    store = Store(root)
    if not store.is_local:
        raise InputError(f"MLFLOW_TRACKING_URI is {store.uri}, so its pages are there already; unset it to serve the local store")
    _ = store.client
    commands = {
        f"Prefect  http://{host}:{prefect_port}": [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(prefect_port)],
        f"MLflow   http://{host}:{mlflow_port}": [
            *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(mlflow_port), "--workers", "1"),
            *("--backend-store-uri", store.uri, "--default-artifact-root", (store.folder / "artifacts").as_uri()),
        ],
    }
    with noted_signals() as ended:
        servers = {page: _started(command) for page, command in commands.items()}
        try:
            for page in servers:
                say(page)
            while not ended:
                for page, server in servers.items():
                    if server.poll() is not None:
                        raise StorageError(
                            f"{page.split()[0]} stopped with code {server.returncode}; is its port in use? choose another with --{page.split()[0].lower()}-port"
                        )
                time.sleep(0.1)
        finally:
            for server in servers.values():
                end_group(server)
    say(SIGNALS[ended[0]])
    return 128 + ended[0]


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent)
