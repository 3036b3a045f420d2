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
from tasks.running.interrupt import ending_at_once
from tasks.running.lock import project_taken
from tasks.running.recompression import listener
from tasks.running.server_watchdog import end_server_with_this_process
from tasks.tracking.track import Store

SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
}
"""Prefect's own start limit of 20 s is short of what a loaded machine needs."""
ROOM = 64_000_000
"""Bytes that must be free before a run begins: two databases and the first step."""


def prepare(root: Path) -> None:
    """Prefect keeps its database below the project unless told otherwise; it may be deleted at any time."""
    os.environ.setdefault("PREFECT_HOME", str(root / ".prefect"))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def run_flow(name: str, root: Path, say: Callable[[str], None], **parameters: Any) -> Any:
    """Run the flow ``flows.<name>`` in this process, with a temporary Prefect server unless ``PREFECT_API_URL`` names one.

    The project is held before that server starts: two that make one new database tell each other's errors in pages. Raises ``StorageError``.
    """
    prepare(root)
    _check_room(root)
    _check_server()
    with ending_at_once(), listener(say), project_taken(root.resolve()):
        if not os.environ.get("PREFECT_API_URL"):
            end_server_with_this_process()
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        return flow(root=str(root), **parameters)


def _check_room(root: Path) -> None:
    """Raises ``StorageError`` on a disk that is as good as full: servers that cannot write their databases end in pages of tracebacks of their own."""
    free = shutil.disk_usage(root).free
    if free < ROOM:
        raise StorageError(f"{free / 1e6:.1f} MB are free at {root.resolve()}, and a run does not begin with less than {ROOM / 1e6:.0f} MB; make space")


def _check_server() -> None:
    """Raises ``StorageError`` when ``PREFECT_API_URL`` names a server that does not answer."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    import httpx2

    try:
        httpx2.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
    except httpx2.HTTPError as error:
        raise StorageError(f"the Prefect server that PREFECT_API_URL names, {url}, does not answer ({error}); start it, or unset PREFECT_API_URL") from None


def serve_pages(root: Path, host: str, prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Start both servers and wait. Ends only what it started."""
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
    servers = {page: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for page, command in commands.items()}
    try:
        for page in servers:
            say(page)
        while True:
            for page, server in servers.items():
                if server.poll() is not None:
                    raise StorageError(
                        f"{page.split()[0]} stopped with code {server.returncode}; is its port in use? choose another with --{page.split()[0].lower()}-port"
                    )
            time.sleep(0.5)
    finally:
        for server in servers.values():
            server.terminate()
        for server in servers.values():
            server.wait(timeout=20)
