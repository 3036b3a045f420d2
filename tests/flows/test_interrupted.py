"""Ctrl-C and SIGTERM at ten moments of a run: one line, the signal's exit code, no process left behind, and the next run goes on with what was finished."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
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
LINES = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "ended by SIGTERM"}


def interrupt(project: Path, moment: str, number: signal.Signals) -> tuple[int, str, list[psutil.Process]]:
    """The exit code, what was said after the moment, and the processes that the run had started by then."""
    command = [sys.executable, "-m", "flows.cli", "run", "recipe.yaml"]
    with subprocess.Popen(command, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        before = b""
        while moment.encode() not in before:
            piece = process.stderr.read1(4096)  # type: ignore[attr-defined]
            assert piece, before.decode()[-2000:]
            before += piece
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        after = process.stderr.read().decode()
        return process.wait(), after, children


def test_ten_interrupted_runs_end_in_one_line_each_and_lose_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    recipe = project / "recipe.yaml"
    recipe.write_text(re.sub(r"  small:\n.*?policy:", "policy:", recipe.read_text(), flags=re.DOTALL))
    for moment, number in MOMENTS:
        code, after, children = interrupt(project, moment, number)
        assert code == 128 + number, (moment, after[-2000:])
        assert "Traceback" not in after, (moment, after[-2000:])
        assert [line for line in after.splitlines() if line.startswith("recompress:")] == [
            f"recompress: {LINES[number]}; the same command goes on after the last finished step"
        ]
        _, left = psutil.wait_procs(children, timeout=60)
        assert left == [], (moment, [process.cmdline() for process in left])
    outcome = run(project, "run", "recipe.yaml")
    assert {"baseline", "int8/1 dynamic_int8", "verdicts"} <= set(outcome["reused"])
    assert outcome["promotion"]["version"] == "1"
    assert run(project, "audit", "verify")["holds"] is True
