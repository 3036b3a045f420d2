"""Servers of Prefect and MLflow that tests start on loopback, with a database of their own, and end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tasks.running.servers import end_group


@contextmanager
def prefect_server(home: Path, database: str = "", **settings: str) -> Iterator[str]:
    """A Prefect server over SQLite, or over the PostgreSQL database of that URL: its API's address. ``settings`` are Prefect's own."""
    port = str(free_port())
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **settings}
    own |= {"PREFECT_API_DATABASE_CONNECTION_URL": database.replace("postgresql:", "postgresql+asyncpg:")} if database else {}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with _running(command, home / "prefect-server.log", own, f"http://127.0.0.1:{port}/api/health"):
        yield f"http://127.0.0.1:{port}/api"


@contextmanager
def mlflow_server(home: Path, database: str = "") -> Iterator[str]:
    """An MLflow server over SQLite, or over the PostgreSQL database of that URL: its address."""
    port = str(free_port())
    store = database.replace("postgresql:", "postgresql+psycopg:") or f"sqlite:///{home / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(home / "artifacts")]
    with _running(command, home / "mlflow-server.log", {}, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], log: Path, own: dict[str, str], address: str) -> Iterator[None]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    with log.open("w") as lines, subprocess.Popen(command, stdout=lines, stderr=lines, env=outside | own, start_new_session=True) as process:
        try:
            _wait_for(address, process, log)
            yield
        finally:
            end_group(process)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            httpx2.get(address, timeout=5).raise_for_status()
            return
        except httpx2.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not come up: {log.read_text()[-2000:]}")


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
