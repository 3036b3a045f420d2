"""What a run that was killed leaves behind: its temporary server ends with it, and nobody else's does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.running import server_watchdog

RUN = f"""
import subprocess, sys, time
from tasks.running.server_watchdog import end_server_with_this_process
end_server_with_this_process()
end_server_with_this_process()
sleep = "import time; time.sleep(120)"
server = subprocess.Popen([sys.executable, "-c", sleep, {server_watchdog.SERVER!r}])
other = subprocess.Popen([sys.executable, "-c", sleep, "something else"])
print(server.pid, other.pid, flush=True)
time.sleep(120)
"""


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_of_a_killed_run_ends_and_no_other_process_does(how: signal.Signals) -> None:
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(120)", server_watchdog.SERVER], env={**os.environ, server_watchdog.MARK: "another run's"}
    )
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    server, other = (psutil.Process(int(word)) for word in run.stdout.readline().split())
    watchers = [p for p in psutil.Process(run.pid).children() if any(word.endswith("server_watchdog.py") for word in p.cmdline())]
    assert len(watchers) == 1
    try:
        os.kill(run.pid, how)
        run.wait(30)
        deadline = time.monotonic() + 60
        while not (has_ended(server) and has_ended(watchers[0])) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert has_ended(server)
        assert has_ended(watchers[0]), "the watcher goes when its work is done"
        assert not has_ended(other), "whatever is no server is left alone"
        assert bystander.poll() is None, "a server of another run is left alone"
    finally:
        run.stdout.close()
        other.kill()
        bystander.kill()
        bystander.wait()


def test_a_run_that_ends_by_itself_leaves_no_watcher(tmp_path: Path) -> None:
    code = "import os\nfrom tasks.running import server_watchdog\nserver_watchdog.end_server_with_this_process()\nprint(server_watchdog._watchers[0].pid)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not psutil.pid_exists(int(completed.stdout))
    assert completed.stderr == ""


def test_a_process_that_is_gone_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    waited: list[object] = []
    monkeypatch.setattr(server_watchdog.select, "select", lambda *arguments: waited.append(arguments))
    monkeypatch.setattr(server_watchdog.time, "sleep", waited.append)
    server_watchdog.wait_for_end(process.pid)
    assert waited == []
