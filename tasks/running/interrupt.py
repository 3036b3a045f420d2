"""Ctrl-C, SIGTERM and the end of the terminal end a run at once, in one line.

A run may be killed at any moment and is taken up by the next one, so nothing has to be wound down first; Prefect's own winding down takes more than a minute
once its temporary server is gone (systemd and ``timeout`` end all processes of a run together), and tells pages of tracebacks meanwhile. So what the run has
started is ended, and the process with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType

import psutil

from tasks.running.prefect_server import named_server
from tasks.running.server_watchdog import SERVER, is_watcher
from tasks.running.servers import SIGNALS, heeded_signals

PATIENCE_S = 1.0
"""What a child may take to end by itself before it is killed."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """While the block runs, each of the signals ends this process with 128 and its number. Only a main thread can be told of signals; in others the block just runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    run = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != run:  # forked off by the run, which says it for all
            os._exit(128 + number)
        _end(number)

    usual = {number: signal.signal(number, end) for number in heeded_signals()}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def ending_at_once_inside() -> AbstractContextManager[None]:
    """The same within a flow, where Prefect has put its own handler of SIGTERM before that of the run: it tells the server first, and waits for it. A temporary one
    need not know, and may be gone already. To a server that somebody named Prefect says it, as to that of a worker which cancels a flow."""
    return ending_at_once() if named_server() is None else nullcontext()


def _end(number: int) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # a second Ctrl-C has nothing to add
    with suppress(OSError):  # nobody may be reading any more
        sys.stderr.write(f"\nrecompress: {SIGNALS[signal.Signals(number)]}; the same command goes on after the last finished step\n")
        sys.stderr.flush()
    _end_children()
    os._exit(128 + number)


def _end_children() -> None:
    """All that this process has started, and what that has; but for the watcher, which makes sure of the server when this process is gone. A temporary server has
    nothing to wind down, and would tell tracebacks of what it was asked last."""
    with suppress(psutil.Error):
        children = [child for child in psutil.Process().children(recursive=True) if not is_watcher(child.pid)]
        for child in children:
            with suppress(psutil.Error):
                if SERVER in child.cmdline():
                    child.kill()
                else:
                    child.terminate()
        _, stubborn = psutil.wait_procs(children, timeout=PATIENCE_S)
        for child in stubborn:
            with suppress(psutil.Error):
                child.kill()
