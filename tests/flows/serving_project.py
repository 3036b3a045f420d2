"""A server in a process of its own, as the command starts it, over a project whose champion answers on ONNX Runtime."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.servers import free_port

MODULES = ("mlflow", "prefect", "torch", "transformers", "pandas", "scipy", "sklearn", "dvc", "great_expectations", "onnx")
PROBE = f"""
import atexit, json, runpy, sys
sys.argv = ["recompress", *sys.argv[1:]]
atexit.register(lambda: print(json.dumps([name for name in {MODULES!r} if name in sys.modules]), file=sys.stderr))
runpy.run_module("flows.cli", run_name="__main__")
"""
"""The command; at its end it tells what it has imported of what takes long."""


class Server:
    """The command while it runs; what it says is read as it comes."""

    def __init__(self, process: subprocess.Popen[str], port: str) -> None:
        self.process, self.port = process, int(port)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def until(self, text: str) -> str:
        """Wait for a line with this text."""
        end = time.monotonic() + 120
        while True:
            if found := next((line for line in self.lines if text in line), None):
                return found
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None or self._reader.is_alive(), self.lines
            time.sleep(0.02)

    def ask(self, body: object, path: str = "/invocations") -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON; ``None`` for a body asks with GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, json.loads(text) if headers.get("content-type") == "application/json" and text.strip() else text
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        [line] = [line for line in self.ask(None, "/metrics")[2].splitlines() if line.startswith(f"{name} ")]
        return float(line.rpartition(" ")[2])

    @property
    def memory(self) -> int:
        """Bytes that it and its children hold."""
        mine = psutil.Process(self.process.pid)
        return sum(int(one.memory_info().rss) for one in (mine, *mine.children(recursive=True)))

    def end(self, number: int) -> tuple[int, list[str]]:
        """Its exit code and all that it said."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(60)
        return code, self.lines


@contextmanager
def serving(root: Path, reference: str, *options: str, probe: bool = False, **environment: str) -> Iterator[Server]:
    """``recompress serve`` until the block ends; it is killed where it does not end by itself."""
    port = str(free_port())
    begin = ["-c", PROBE] if probe else ["-m", "flows.cli"]
    command = [sys.executable, *begin, "--root", str(root), "serve", reference, "--port", port, *options]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with subprocess.Popen(command, env=outside | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        server = Server(process, port)
        try:
            yield server
        finally:
            process.kill()
