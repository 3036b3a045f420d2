"""Time is measured beside nothing else, and is not kept waiting for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tasks.running.room import at_work


def until(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(condition())  # type: ignore[operator]


def test_work_goes_on_beside_work_and_time_is_measured_alone_before_what_comes_later(tmp_path: Path) -> None:
    order, lines, leave = list[str](), list[str](), threading.Event()
    inside = threading.Barrier(3)

    def early() -> None:
        with at_work(tmp_path, lines.append, "early"):
            inside.wait(20)  # both at once, with this test
            leave.wait(20)
            order.append("early")

    def alone() -> None:
        with at_work(tmp_path, lines.append, "timing", alone=True):
            order.append("timing begins")
            time.sleep(0.3)
            order.append("timing ends")

    def late() -> None:
        with at_work(tmp_path, lines.append, "late"):
            order.append("late")

    workers = [threading.Thread(target=early), threading.Thread(target=early)]
    for worker in workers:
        worker.start()
    inside.wait(20)
    assert lines == []
    timing = threading.Thread(target=alone)
    timing.start()
    assert until(lambda: len(lines) == 1)
    latecomer = threading.Thread(target=late)
    latecomer.start()
    assert until(lambda: len(lines) == 2)
    leave.set()
    for thread in (*workers, timing, latecomer):
        thread.join(20)
    assert order == ["early", "early", "timing begins", "timing ends", "late"]
    assert lines == ["timing · waiting until other work in this project is done, for time is measured", "late · waiting while time is measured"]
