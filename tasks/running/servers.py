"""Servers that a command starts and ends: each in a process group of its own, ended as a whole by whatever signal ends the command."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended with its terminal"}
PATIENCE_S = 5.0
"""What a server may take to end by itself before it is killed."""
DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of prctl(2)."""


@contextmanager
def noted_signals() -> Iterator[list[signal.Signals]]:
    """The signals that came while the block ran: servers are ended and copies removed before this process goes."""
    came: list[signal.Signals] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    usual = {number: signal.signal(number, note) for number in heeded_signals()}
    try:
        yield came
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def heeded_signals() -> list[signal.Signals]:
    """Those that end this process: without the end of the terminal for whoever was started with nohup, which means it."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def die_with_parent() -> None:
    """Where this process is killed and can end nothing, Linux ends the server."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").prctl(DIE_WITH_PARENT, signal.SIGTERM)


def end_group(process: subprocess.Popen[bytes], patience_s: float | None = None) -> None:
    """End a server that leads a process group, and all that it has started. ``patience_s`` is ``PATIENCE_S`` where it is left out; so long twice at most."""
    patience_s = PATIENCE_S if patience_s is None else patience_s
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        if number == signal.SIGTERM:
            _wait_for_group(process.pid, patience_s)


def _wait_for_group(group: int, patience_s: float) -> None:
    """Until nobody of the process group is left, or patience ends."""
    until = time.monotonic() + patience_s
    with suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)
