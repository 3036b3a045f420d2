"""A version over HTTP, by MLflow's own server: checked from outside, and served from the copy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.errors import StorageError
from recompress.serving.server import bound
from tasks.people.check import Checked, check
from tasks.running.project import Project
from tasks.running.servers import SIGNALS, die_with_parent, end_group, noted_signals


def serve_by_mlflow(project: Project, reference: str, host: str, port: int, say: Callable[[str], None]) -> int:
    """Check a version, serve the checked copy with MLflow's own server until a signal comes, and give the exit code that belongs to it. Raises ``StorageError``."""
    with bound(host, port):  # whoever listens there already would seem to be the model
        pass
    with tempfile.TemporaryDirectory(prefix="recompress-serve-") as private:  # mode 0700
        checked = check(project, reference, Path(private) / "version")
        say(checked.told)
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
