"""What ends a run while Prefect holds its signals, and what else in the run may hear them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.running import interrupt, server_watchdog

ROOT = Path(__file__).parents[3]
FLOW = """
import os, signal, sys, time
from tasks.running import interrupt
interrupt.named_server = lambda: {named}
def prefect(number, frame):
    sys.exit(7)  # as Prefect does it, who tells the server first
with interrupt.ending_at_once():
    signal.signal(signal.SIGTERM, prefect)
    with interrupt.ending_at_once_inside():
        os.kill(os.getpid(), signal.{number})
        time.sleep(60)
"""
FORKED = """
import os, signal, time
from tasks.running import interrupt
with interrupt.ending_at_once():
    if os.fork() == 0:
        time.sleep(60)
    time.sleep(0.2)
    os.killpg(0, signal.{number})
    time.sleep(60)
"""


SERVER = """
import signal, subprocess, sys, time
from tasks.running import interrupt
talks = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('Traceback')); print('up', flush=True); time.sleep(60)"
server = subprocess.Popen([sys.executable, "-c", talks, {mark!r}], stdout=subprocess.PIPE)
server.stdout.readline()
with interrupt.ending_at_once():
    signal.raise_signal(signal.SIGTERM)
"""


def ended(code: str) -> tuple[int, str]:
    def heard() -> None:  # whoever runs the tests with nohup has them ignore it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False, start_new_session=True, preexec_fn=heard
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_temporary_server_is_told_nothing(number: str) -> None:
    code, said = ended(FLOW.format(named="None", number=number))
    name = signal.Signals[number]
    assert (code, said.strip()) == (128 + name, f"recompress: {interrupt.SIGNALS[name]}; the same command goes on after the last finished step")


def test_a_server_that_somebody_named_is_told() -> None:
    assert ended(FLOW.format(named="'http://server'", number="SIGTERM")) == (7, "")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_all_processes_of_a_run_is_said_once(number: str) -> None:
    code, said = ended(FORKED.format(number=number))
    assert (code, said.count("recompress:")) == (128 + signal.Signals[number], 1)


def test_a_temporary_server_has_no_time_to_tell_of_its_end() -> None:
    assert "Traceback" not in ended(SERVER.format(mark=server_watchdog.SERVER))[1]
    assert "Traceback" in ended(SERVER.format(mark="another"))[1], "any other child may"
