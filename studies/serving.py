"""What serving costs: the champion by the server of this package and by MLflow's, with the same texts, in one run.

    make run && python -m studies.serving --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"

1. Memory of each server with all its processes, shared pages counted once (PSS): when it answers for the first time, and at the end of the second part.
2. Processor time a request: one client that asks one text after the other, in rounds by turns; the median of the rounds. What the client takes is not in it.
3. Twenty clients for a minute with each server: requests and rows, how long they took, how many were lost, and how many answers are not what the model says of that
   text alone.

The project is one in which the quickstart was run (``--project``, this one if left out); texts are those of its test split. Writes ``studies/results/serving.json``
and ``.md``. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from recompress.data.splits import read_split
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.predict import Predictor
from studies.written import ROOT, arguments, write
from tasks.people.check import check
from tasks.running.project import Project

SERVERS = ("recompress", "mlflow")
MODEL, DATASET = "quickstart", "pydocs"
TEXTS, ROUNDS, REQUESTS = 400, 7, 200
CLIENTS, SECONDS = 20, 60.0
CLOSE = 2e-6
"""Two scores that were rounded to six digits."""
LIMITS = {"memory": 0.25, "processor": 0.5}
"""At most so many times what MLflow's server takes."""


class Server:
    """A server that runs, and what it uses."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def processes(self) -> list[psutil.Process]:
        mine = psutil.Process(self.process.pid)
        return [mine, *mine.children(recursive=True)]

    @property
    def memory_bytes(self) -> int:
        return sum(int(one.memory_full_info().pss) for one in self.processes)

    @property
    def processor_seconds(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self.processes)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def ask(connection: http.client.HTTPConnection, rows: Sequence[str]) -> tuple[int, Any]:
    connection.request("POST", "/invocations", json.dumps({"inputs": list(rows)}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    return response.status, json.loads(body)["predictions"] if response.status == 200 else None


@contextmanager
def serving(project: Path, name: str) -> Iterator[Server]:
    """``recompress serve --with NAME`` until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "--root", str(project), "serve", f"{MODEL}@champion", "--port", str(port), "--with", name]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        server = Server(process, port)
        try:
            while True:
                time.sleep(0.2)
                assert process.poll() is None, "the server did not come up"
                try:
                    connection = server.connect()
                    connection.request("GET", "/ping")
                    connection.getresponse().read()
                    break
                except OSError:
                    continue
            yield server
        finally:
            process.send_signal(signal.SIGTERM)


def one_after_the_other(servers: dict[str, Server], texts: Sequence[str]) -> dict[str, list[float]]:
    """Milliseconds of the processor for a request, by server and round."""
    took: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(ROUNDS + 1):
        for name in servers if number % 2 else reversed(list(servers)):
            begun, connection = servers[name].processor_seconds, servers[name].connect()
            for i in range(REQUESTS):
                ask(connection, [texts[i % len(texts)]])
            connection.close()
            if number:  # the first round warms them
                took[name].append(1000 * (servers[name].processor_seconds - begun) / REQUESTS)
    return took


def by_itself(predictor: Predictor, texts: Sequence[str]) -> float:
    """Milliseconds of the processor that the model takes for a text, tokenizer and all, without any server: the median of the rounds."""
    took = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        for i in range(REQUESTS):
            predictor([texts[i % len(texts)]])
        took.append(1000 * (time.process_time() - begun) / REQUESTS)
    return statistics.median(took[1:])


def many_clients(server: Server, texts: Sequence[str], alone: dict[str, Any]) -> dict[str, Any]:
    """What became of the requests of all clients."""
    end = time.monotonic() + SECONDS
    seconds: list[float] = []
    lost: list[str] = []
    wrong: list[str] = []

    def client(number: int) -> None:
        draw, connection = random.Random(number), server.connect()
        while time.monotonic() < end:
            rows = draw.choices(texts, k=draw.choice((1, 1, 1, 2, 4)))
            begun = time.perf_counter()
            try:
                status, answers = ask(connection, rows)
            except (OSError, http.client.HTTPException) as error:
                lost.append(type(error).__name__)
                connection = server.connect()
                continue
            seconds.append(time.perf_counter() - begun)
            if status != 200:
                lost.append(str(status))
            elif len(answers) != len(rows) or not all(same(answer, alone[row]) for answer, row in zip(answers, rows, strict=True)):
                wrong.append(json.dumps(answers))

    begun = server.processor_seconds
    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    order = sorted(seconds)
    return {
        "requests": len(seconds),
        "lost": len(lost),
        "wrong": len(wrong),
        "examples": (lost + wrong)[:3],
        "requests_per_second": len(seconds) / SECONDS,
        "median_ms": 1000 * statistics.median(order),
        "p99_ms": 1000 * order[int(0.99 * len(order))],
        "processor_ms_per_request": 1000 * (server.processor_seconds - begun) / len(seconds),
    }


def same(answer: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(answer["label"] == other["label"] and abs(answer["score"] - other["score"]) <= CLOSE)


def measure(root: Path) -> dict[str, Any]:
    """All three parts."""
    texts = [" ".join(example.words) for example in read_split(root / "prepared" / DATASET, "test")[:TEXTS]]
    checked = check(Project(root), f"{MODEL}@champion")
    predictor = Predictor(checked.folder / MODEL_FOLDER)
    alone = {text: predictor([text])[0] for text in texts}
    results: dict[str, Any] = {"manifest_sha256": checked.manifest_sha256, "texts": len(texts), "load_before": os.getloadavg()[0], "servers": {}}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(root, name)) for name in SERVERS}
        for name, server in servers.items():
            ask(server.connect(), texts[:1])
            results["servers"][name] = {"memory_bytes_first": server.memory_bytes, "processes": len(server.processes)}
        results["model_ms"] = by_itself(predictor, texts)
        for name, rounds in one_after_the_other(servers, texts).items():
            results["servers"][name] |= {"processor_ms_rounds": rounds, "processor_ms": statistics.median(rounds), "memory_bytes": servers[name].memory_bytes}
    for name in SERVERS:
        with serving(root, name) as server:
            results["servers"][name]["many"] = many_clients(server, texts, alone) | {"memory_bytes": server.memory_bytes}
    ours, theirs = (results["servers"][name] for name in SERVERS)
    beyond = [one["processor_ms"] - results["model_ms"] for one in (ours, theirs)]
    results["ratios"] = {
        "beyond_the_model": beyond[0] / beyond[1],
        "memory": ours["memory_bytes"] / theirs["memory_bytes"],
        "processor": ours["processor_ms"] / theirs["processor_ms"],
    }
    return results


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    rows = [
        ("memory when it first answers, MB", lambda one: f"{one['memory_bytes_first'] / 1e6:.0f}"),
        ("memory after the second part, MB", lambda one: f"{one['memory_bytes'] / 1e6:.0f}"),
        ("processes", lambda one: f"{one['processes']}"),
        (
            "processor time a request, ms",
            lambda one: f"{one['processor_ms']:.2f} ({min(one['processor_ms_rounds']):.2f} to {max(one['processor_ms_rounds']):.2f})",
        ),
        (f"{CLIENTS} clients for {SECONDS:.0f} s: requests", lambda one: f"{one['many']['requests']:,}"),
        ("– lost", lambda one: f"{one['many']['lost']}"),
        ("– with a wrong answer", lambda one: f"{one['many']['wrong']}"),
        ("– median and 99th percentile, ms", lambda one: f"{one['many']['median_ms']:.0f} and {one['many']['p99_ms']:.0f}"),
        ("– processor time a request, ms", lambda one: f"{one['many']['processor_ms_per_request']:.2f}"),
        ("– memory at the end, MB", lambda one: f"{one['many']['memory_bytes'] / 1e6:.0f}"),
    ]
    ratios = results["ratios"]
    lines = [
        "# What serving costs\n",
        f"`python -m studies.serving`, {results['date']}, {results['machine']}; load {results['load_before']:.1f} before it began.\n",
        f"The quickstart's champion (manifest `{results['manifest_sha256'][:12]}…`), {results['texts']} texts of its test split, each answered on one thread.\n",
        "| | `recompress serve` | `mlflow models serve` |\n|---|---:|---:|",
        *(f"| {title} | {tell(results['servers']['recompress'])} | {tell(results['servers']['mlflow'])} |" for title, tell in rows),
        f"\nThe model itself takes {results['model_ms']:.2f} ms of the processor for a text, whoever serves it; what is beyond that is {ratios['beyond_the_model']:.2f} of MLflow's.\n",
        f"Memory is {ratios['memory']:.2f} of MLflow's (at most {LIMITS['memory']} is asked for), processor time {ratios['processor']:.2f} (at most {LIMITS['processor']}).",
        "Memory is that of all processes of a server, pages that they share counted once. Requests of the last part have 1, 2 or 4 texts; an answer is wrong where its label is",
        "not the one that the model gives to that text alone, or its score differs in more than the last digit.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what came out."""
    told = arguments(__doc__, in_a_project=True)
    write("serving", told, measure(told.project.resolve()), page)


if __name__ == "__main__":
    main()
