"""Servers that a command started end with it, whatever ends it, with all that they have started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PAGES = """
import subprocess, sys
from pathlib import Path
from types import SimpleNamespace
from tasks.running import orchestrate
command = ["bash", "-c", "sleep 300 & sleep 300"]  # a server with a worker
start = orchestrate._started
orchestrate._started = lambda _: start(command)
orchestrate.Store = lambda root: SimpleNamespace(is_local=True, uri="sqlite:///x", folder=Path(root), client=None)
sys.exit(orchestrate.serve_pages(Path("/tmp"), "127.0.0.1", 1, 2, lambda line: print(line, flush=True)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGHUP))])
def test_a_signal_ends_serve_and_all_that_it_started(number: signal.Signals) -> None:
    def heard() -> None:  # whoever runs the tests with nohup has them ignore it
        signal.signal(number, signal.SIG_DFL)

    command = [sys.executable, "-c", PAGES]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True, preexec_fn=heard) as serve:
        assert serve.stdout is not None
        assert [serve.stdout.readline().split()[0] for _ in range(2)] == ["Prefect", "MLflow"]
        deadline = time.monotonic() + 20
        while len(begun := psutil.Process(serve.pid).children(recursive=True)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        serve.send_signal(number)
        assert serve.wait(30) == 128 + number
        assert not [process for process in begun if process.is_running() and process.status() != "zombie"]
        assert len(serve.stdout.read().splitlines()) == 1


def test_who_is_started_with_nohup_stays_when_the_terminal_goes() -> None:
    code = "import signal; from tasks.running.servers import noted_signals\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith noted_signals() as came:\n    signal.raise_signal(signal.SIGHUP)\nassert came == []"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
