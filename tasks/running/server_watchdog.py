"""The temporary Prefect server of a run ends with the run, also when that is killed and can end nothing itself.

A small process beside the run (this file) waits for the run's end. Whatever the run starts carries a mark in its environment that is drawn for this run alone;
what is still there then, carries the mark and is such a server, is ended. Nothing else ever is.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psutil

MARK = "RECOMPRESS_RUN_MARK"
SERVER = "prefect.server.api.server:create_app"
"""Stands in the command line of every temporary server."""
LOOKS, PAUSE_S = 3, 0.5
"""A server may just have been forked, with no command line of its own yet."""
PATIENCE_S = 10.0
_watchers: list[subprocess.Popen[bytes]] = []


def end_server_with_this_process() -> None:
    """Start the watcher, once in a process. Call it before the server starts."""
    if _watchers:
        return
    os.environ[MARK] = uuid.uuid4().hex
    command = [sys.executable, "-P", __file__, str(os.getpid()), os.environ[MARK]]  # -P: the files beside this one are no top-level modules
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    _watchers.append(subprocess.Popen(command, **quiet, start_new_session=True))  # Ctrl-C is for the run, not for it
    atexit.register(_dismiss)  # before Prefect registers the end of its server, so it comes after that


def is_watcher(pid: int) -> bool:
    """Whether this process started a watcher of that number."""
    return any(watcher.pid == pid for watcher in _watchers)


def _dismiss() -> None:
    for watcher in _watchers:
        watcher.terminate()
        watcher.wait()
    _watchers.clear()


def wait_for_end(parent: int) -> None:
    """Return when the process that started this one is no more."""
    try:
        ended = os.pidfd_open(parent)
    except (AttributeError, OSError):  # not Linux, or it is gone already
        while os.getppid() == parent:
            time.sleep(1.0)
        return
    if os.getppid() == parent:  # else the number may be somebody else's by now
        select.select([ended], [], [])


def servers_of(mark: str) -> Iterator[psutil.Process]:
    """Temporary servers that a run with this mark has started."""
    for process in psutil.process_iter():
        try:
            if SERVER in process.cmdline() and process.environ().get(MARK) == mark:
                yield process
        except (psutil.Error, OSError):  # it has ended, or belongs to somebody else
            continue


def end_servers(mark: str) -> None:
    for _ in range(LOOKS):
        servers = list(servers_of(mark))
        for server in servers:
            server.terminate()
        _, alive = psutil.wait_procs(servers, timeout=PATIENCE_S)
        for server in alive:
            server.kill()
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    wait_for_end(int(sys.argv[1]))
    end_servers(sys.argv[2])
