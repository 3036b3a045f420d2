"""Ctrl-C, SIGTERM and SIGHUP at moments of a run, to its process, to its group, or to all that it has started: one line, the signal's exit code, no process left behind, and the next run goes on with what was finished."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.flows.toy_project import environment, make_project, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
MOMENTS = (
    ("data: toy", signal.SIGINT),
    ("check toy ·", signal.SIGTERM),
    ("baseline ·", signal.SIGINT),
    ("int8/1 dynamic_int8", signal.SIGTERM),
    ("baseline/dev-quality", signal.SIGINT),
    ("timing", signal.SIGTERM),
    ("baseline/quality", signal.SIGINT),
    ("verdicts ·", signal.SIGTERM),
    ("promotion ·", signal.SIGINT),
    ("report", signal.SIGTERM),
)
"""What a run says when it begins something, and the signal that it gets then."""
TOGETHER = (
    ("baseline ·", signal.SIGTERM, "group"),
    ("baseline ·", signal.SIGINT, "group"),
    ("baseline ·", signal.SIGHUP, "group"),
    ("baseline ·", signal.SIGTERM, "all"),
)
"""As a terminal, ``timeout`` and systemd do it: to the group of the run, or to each of its processes, the server first."""
SECONDS = 30
"""Far less than Prefect waits for a server that is gone."""
LINES = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended with its terminal"}


def interrupt(project: Path, moment: str, number: signal.Signals, to: str = "process") -> tuple[int, str, list[psutil.Process]]:
    """The exit code, what was said after the moment, and the processes that the run had started by then."""
    command = [sys.executable, "-m", "flows.cli", "run", "recipe.yaml"]

    def heard() -> None:  # whoever runs the tests with nohup has them ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen(
        command, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        before = b""
        while moment.encode() not in before:
            piece = process.stderr.read1(4096)  # type: ignore[attr-defined]
            assert piece, before.decode()[-2000:]
            before += piece
        children = psutil.Process(process.pid).children(recursive=True)
        if to == "group":
            os.killpg(process.pid, number)
        elif to == "all":
            for child in children:
                child.send_signal(number)
            psutil.wait_procs(children, timeout=5)  # the server is gone before the run hears of it
            process.send_signal(number)
        else:
            process.send_signal(number)
        sent = time.monotonic()
        after = process.stderr.read().decode()
        code = process.wait()
        assert time.monotonic() - sent < SECONDS, (moment, after[-2000:])
        return code, after, children


def check_end(moment: str, number: signal.Signals, ending: tuple[int, str, list[psutil.Process]]) -> None:
    code, after, children = ending
    assert code == 128 + number, (moment, after[-2000:])
    assert "Traceback" not in after, (moment, after[-2000:])
    assert [line for line in after.splitlines() if line.startswith("recompress:")] == [
        f"recompress: {LINES[number]}; the same command goes on after the last finished step"
    ]
    _, left = psutil.wait_procs(children, timeout=60)
    assert left == [], (moment, [process.cmdline() for process in left])


@pytest.mark.parametrize(("moment", "number", "to"), TOGETHER)
def test_a_signal_to_all_processes_of_a_run_ends_it_as_one_to_the_run_does(made: Path, moment: str, number: signal.Signals, to: str) -> None:
    check_end(moment, number, interrupt(made, moment, number, to))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("interrupted") / "project")


def test_ten_interrupted_runs_end_in_one_line_each_and_lose_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    recipe = project / "recipe.yaml"
    recipe.write_text(re.sub(r"  small:\n.*?policy:", "policy:", recipe.read_text(), flags=re.DOTALL))
    for moment, number in MOMENTS:
        check_end(moment, number, interrupt(project, moment, number))
    outcome = run(project, "run", "recipe.yaml")
    assert {"baseline", "int8/1 dynamic_int8", "verdicts"} <= set(outcome["reused"])
    assert outcome["promotion"]["version"] == "1"
    assert run(project, "audit", "verify")["holds"] is True
