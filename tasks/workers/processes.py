"""Workers on this machine: processes that are started when there is work and end with the run, whatever ends it.

Jobs go to them as lines of JSON, and how each ended comes back in the same way. A worker that dies takes its job with it and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tasks.running.servers import die_with_parent, end_group
from tasks.running.threads import threads_of_a_step
from tasks.workers.job import Ended, Job

Say = Callable[[str], None]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""What the libraries of a worker read, so that N workers compute with N times the threads of a step and no more."""
WORKER = ("-P", "-m", "tasks.workers.process")


@dataclass(eq=False)
class Worker:
    """A process, and the job that it has."""

    process: subprocess.Popen[bytes]
    job: Job | None = None
    unread: dict[str, bytes] = field(default_factory=lambda: {"told": b"", "shown": b""})


class Processes:
    """At most ``count`` workers. Start them from the main thread: Linux ends a worker when the thread that started it does."""

    def __init__(self, root: Path, count: int, say: Say) -> None:
        self._root, self._count, self._say = root, count, say
        self._workers: list[Worker] = []
        """Those that live."""
        self._all: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._ended: deque[Ended] = deque()

    @property
    def free(self) -> int:
        """How many jobs can be given now."""
        return self._count - sum(worker.job is not None for worker in self._workers)

    def give(self, job: Job) -> None:
        """Give a job to a worker that has none; one is started where there is none."""
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._start()
        worker.job = job
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it died while it had nothing to do; that is read as any other end
            worker.process.stdin.write(job.model_dump_json().encode() + b"\n")
            worker.process.stdin.flush()

    def wait(self) -> Ended:
        """How the next job ended."""
        while not self._ended:
            for key, _ in self._selector.select():
                worker, stream = key.data
                self._read(worker, stream, key.fileobj)  # type: ignore[arg-type]
        return self._ended.popleft()

    def close(self) -> None:
        """End all workers, also those that are at work."""
        for worker in self._workers:
            end_group(worker.process)
        for worker in self._all:
            for stream in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
                _close(stream)
        self._workers.clear()
        self._selector.close()

    def _start(self) -> Worker:
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads_of_a_step()))}
        process = subprocess.Popen(
            [sys.executable, *WORKER, str(self._root)],
            cwd=self._root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which ends them
            preexec_fn=die_with_parent,
        )
        worker = Worker(process)
        self._workers.append(worker)
        self._all.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, (worker, "told"))  # type: ignore[arg-type]
        self._selector.register(process.stderr, selectors.EVENT_READ, (worker, "shown"))  # type: ignore[arg-type]
        return worker

    def _read(self, worker: Worker, stream: str, pipe: IO[bytes]) -> None:
        piece = os.read(pipe.fileno(), 1 << 16)
        *lines, worker.unread[stream] = re.split(rb"[\r\n]", worker.unread[stream] + piece)
        for line in filter(None, (line.strip() for line in lines)):
            if stream == "told":
                self._told(worker, json.loads(line))
            else:
                self._say(line.decode(errors="replace"))
        if not piece:
            self._selector.unregister(pipe)
            pipe.close()
            if stream == "told":
                self._died(worker)

    def _told(self, worker: Worker, message: dict[str, Any]) -> None:
        if "say" in message:
            self._say(message["say"])
        elif worker.job is not None:
            self._ended.append(Ended(job=worker.job, **message))
            worker.job = None

    def _died(self, worker: Worker) -> None:
        end_group(worker.process)  # what it had started goes with it
        code = worker.process.wait()
        self._workers.remove(worker)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if worker.job is not None:
            self._ended.append(Ended(job=worker.job, gone=how))


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with suppress(BrokenPipeError):  # what a dead worker did not read
            stream.close()
