"""A server of this package in a thread of the tests, over HTTP on loopback, and models that do what a test tells them."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from recompress.predict import Predictor
from recompress.serving.following import Newer
from recompress.serving.limits import Limits
from recompress.serving.loaded import Loaded
from recompress.serving.server import bound, serve

JSON = {"Content-Type": "application/json"}


@dataclass
class Told:
    """A model that answers each text with its length, as soon as it may; it fails on the text ``fail``."""

    columns: tuple[str, ...] = ("text",)
    asks_alone: bool = True
    in_parallel: bool = True
    label: str = "long"
    may: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    stops_at: str | None = None
    """A text before which it waits for ``may`` again."""
    within: int = 0
    """Calls that wait."""
    calls: list[list[Any]] = field(default_factory=list)

    def in_parts(self, rows: Sequence[Any]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        """Row by row, or all in one call."""
        for places in [[i] for i in range(len(rows))] if self.asks_alone else [[*range(len(rows))]]:
            yield places, self([rows[i] for i in places])

    def __call__(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.within += 1
        self.begun.set()
        if self.stops_at in rows:
            self.may.clear()
        assert self.may.wait(60)
        self.calls.append(list(rows))
        if "fail" in rows:
            raise RuntimeError(f"cannot read {rows}")
        return [{"label": self.label, "length": len(row)} for row in rows]


def told(*, waits: bool = False, version: str = "1", **said: Any) -> Loaded:
    """A version that a test tells what to do; with ``waits`` it does nothing before ``may`` is set."""
    model = Told(**said)
    if not waits:
        model.may.set()
    return Loaded("toy", version, "0" * 64, cast(Predictor, model))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that runs."""

    port: int
    said: list[str]
    ended: list[signal.Signals]
    thread: threading.Thread

    def ask(self, body: bytes | object, headers: dict[str, str] | None = None, method: str = "POST", path: str = "/invocations") -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON if headers is None else headers)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask(b"", {}, "GET", path)

    def metric(self, name: str) -> float:
        """A sample by its name with its labels, as it stands in the text."""
        [line] = [line for line in self.get("/metrics").body.decode().splitlines() if line.startswith(f"{name} ")]
        return float(line.rpartition(" ")[2])

    def later(self, body: object) -> Callable[[], Answer]:
        """Ask now, and take the answer later."""
        thread = ThreadPoolExecutor(1)
        answer = thread.submit(self.ask, body)
        thread.shutdown(wait=False)
        return lambda: answer.result(60)

    def busy(self, model: Told, first: object, *others: dict[str, list[str]]) -> list[Callable[[], Answer]]:
        """Ask a model that waits: it is at the first body, and the rows of the others stand in the queue."""
        asked = [self.later(first)]
        assert model.begun.wait(30)
        asked += [self.later(other) for other in others]
        rows = sum(len(other["inputs"]) for other in others)
        self.until(lambda: self.metric("recompress_waiting_rows") == rows)
        return asked

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, self.said
            time.sleep(0.02)


@contextmanager
def running(loaded: Loaded, limits: Limits | None = None, newer: Newer | None = None, every_s: float = 0.05) -> Iterator[Running]:
    """Serve on a free port until the block ends."""
    said: list[str] = []
    ended: list[signal.Signals] = []
    with bound("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=serve, args=(loaded, listening, limits or Limits(), ended, said.append, newer, every_s))
        thread.start()
        server = Running(listening.getsockname()[1], said, ended, thread)
        server.until(lambda: any("it answers at" in line for line in said))
        try:
            yield server
        finally:
            ended.append(signal.SIGINT)
            thread.join(60)
            assert not thread.is_alive()
