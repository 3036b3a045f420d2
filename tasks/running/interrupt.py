"""Ctrl-C and SIGTERM end a run at once, in one line.

A run may be killed at any moment and is taken up by the next one, so nothing has to be wound down first; Prefect's own winding down takes more than a minute
once its temporary server is gone, and tells pages of tracebacks meanwhile. So what the run has started is ended, and the process with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from tasks.running.server_watchdog import is_watcher

SIGNALS = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "ended by SIGTERM"}
PATIENCE_S = 1.0
"""What a child may take to end by itself before it is killed."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """While the block runs, both signals end this process with 130 or 143. Only a main thread can be told of signals; in others the block just runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.signal(number, _end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # a second Ctrl-C has nothing to add
    with suppress(OSError):  # nobody may be reading any more
        sys.stderr.write(f"\nrecompress: {SIGNALS[signal.Signals(number)]}; the same command goes on after the last finished step\n")
        sys.stderr.flush()
    _end_children()
    os._exit(128 + number)


def _end_children() -> None:
    """All that this process has started, and what that has; but for the watcher, which makes sure of the server when this process is gone."""
    with suppress(psutil.Error):
        children = [child for child in psutil.Process().children(recursive=True) if not is_watcher(child.pid)]
        for child in children:
            with suppress(psutil.Error):
                child.terminate()
        _, stubborn = psutil.wait_procs(children, timeout=PATIENCE_S)
        for child in stubborn:
            with suppress(psutil.Error):
                child.kill()
