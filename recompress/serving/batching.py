"""What waits is put to the model in batches, in the order in which it came, by as many threads as there are cores for it.

Which rows of a batch share a call of the graph is the runtime's own choice, the same that it made when the gate judged it (``recompress.runtimes.cutting``): none
where an answer would depend on its neighbours. What a call has answered is given back before the next one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from recompress.predict import Answer
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from recompress.serving.metrics import Metrics
from recompress.serving.refusal import Refusal
from recompress.serving.request_body import Row

log = logging.getLogger(__name__)
BATCH_ROWS = 32
BATCH_CHARACTERS = 32_768
"""Rows, and characters of all of them, that a thread takes at once; one row at least."""
LOOK_S = 1.0
"""Between two looks for who waits too long."""
PATIENCE_S = 2.0
"""What a row may take that the model is at when the server ends."""


@dataclass(eq=False)
class _Job:
    """A request's rows, of which some may be answered already."""

    loaded: Loaded
    future: asyncio.Future[list[Answer]]
    answers: list[Any]
    missing: int
    until: float
    """The loop's time at which nobody waits any more."""


@dataclass(eq=False)
class _Waiting:
    job: _Job
    place: int
    row: Row
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.row) if isinstance(self.row, str) else sum(map(len, self.row.values()))


class Batcher:
    """A queue with an end, and the threads of the model behind it. Make it in a running loop, and close it there."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._queue: deque[_Waiting] = deque()
        self._open: set[_Job] = set()
        self._loop = asyncio.get_running_loop()
        self._given: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._busy = 0
        self._watching = self._ending = False
        self._threads = [threading.Thread(target=self._answer, name="model", daemon=True) for _ in range(limits.threads)]
        for thread in self._threads:
            thread.start()

    async def ask(self, loaded: Loaded, rows: Sequence[Row]) -> list[Answer]:
        """The answers of a version to rows, in order. Raises ``Refusal``: 503 where the queue is full or the answer takes too long, 500 where the model fails."""
        if not rows:
            return []
        if len(self._queue) + len(rows) > self._limits.queue:
            raise Refusal(503, f"{len(self._queue)} rows wait already, and {self._limits.queue} may; ask again later", retry_after_s=1)
        job = _Job(loaded, self._loop.create_future(), [None] * len(rows), len(rows), self._loop.time() + self._limits.wait_s)
        self._open.add(job)
        self._queue.extend(_Waiting(job, place, row) for place, row in enumerate(rows))
        self._give()
        self._watch()
        try:
            return await job.future
        finally:
            self._open.discard(job)

    def close(self) -> None:
        """Let the threads end after the row that they are at; one that does not end is left to the end of the process."""
        self._ending = True
        for _ in self._threads:
            self._given.put(None)
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _give(self) -> None:
        """Hand the rows that wait to the threads that have nothing to do."""
        while batch := self._next():
            self._busy += 1
            self._given.put(batch)
        self._metrics.waiting.set(len(self._queue))

    def _next(self) -> list[_Waiting]:
        """The first rows that wait, as many as are a thread's share, all for one version, and without those that nobody waits for any more; none where all
        threads are at work."""
        batch: list[_Waiting] = []
        share, characters = BATCH_ROWS, 0
        while self._queue and len(batch) < share:
            first = self._queue[0]
            if first.job.future.done():
                self._queue.popleft()
                continue
            if not batch:
                threads = self._limits.threads if first.job.loaded.predictor.in_parallel else 1
                if self._busy >= threads:
                    break
                share = min(BATCH_ROWS, -(-len(self._queue) // threads))
            elif first.job.loaded is not batch[0].job.loaded or characters + first.length > BATCH_CHARACTERS:
                break
            characters += first.length
            batch.append(self._queue.popleft())
        return batch

    def _watch(self) -> None:
        """Look now and then whether somebody waits for too long; one timer for all is cheaper than one for each."""
        if not self._watching and self._open:
            self._watching = True
            self._loop.call_later(min(LOOK_S, self._limits.wait_s / 2), self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        for job in self._open:
            if job.until <= now and not job.future.done():
                job.future.set_exception(Refusal(503, f"no answer within {self._limits.wait_s:g} s; ask again later", retry_after_s=5))
        self._watching = False
        self._watch()

    def _answer(self) -> None:
        """A thread of the model: each part of a batch is given back as soon as it is answered."""
        while (batch := self._given.get()) is not None:
            left = len(batch)
            for part, answers in () if self._ending else _parts(batch[0].job.loaded, batch):
                left -= len(part)
                with suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits
                    self._loop.call_soon_threadsafe(self._deliver, part, answers, not left)
                if self._ending:
                    return

    def _deliver(self, part: Sequence[_Waiting], answers: Sequence[Answer | None], last: bool) -> None:
        self._metrics.batches.observe(len(part))
        for waiting, answer in zip(part, answers, strict=True):
            job = waiting.job
            if answer is None:
                self._metrics.failures.inc()
                if not job.future.done():
                    job.future.set_exception(Refusal(500, f"the model failed on row {waiting.place + 1}; the server's log names the error"))
                continue
            self._metrics.rows.inc()
            job.answers[waiting.place] = answer
            job.missing -= 1
            if not job.missing and not job.future.done():
                job.future.set_result(job.answers)
        if last:
            self._busy -= 1
            self._give()


def _parts(loaded: Loaded, batch: Sequence[_Waiting]) -> Iterator[tuple[list[_Waiting], Sequence[Answer | None]]]:
    """Rows and their answers as they are computed, ``None`` for a row that the model fails on. Such a row costs its neighbours nothing."""
    unanswered = dict(enumerate(batch))
    try:
        for places, answers in loaded.predictor.in_parts([waiting.row for waiting in batch]):
            yield [unanswered.pop(place) for place in places], answers
    except Exception as error:
        if len(batch) > 1:
            for waiting in unanswered.values():
                yield from _parts(loaded, [waiting])
            return
        log.error("%s failed on a row of %d characters: %s", loaded.name, batch[0].length, type(error).__name__)
        yield [*batch], [None]
