"""Workers as processes: jobs in, ends out, one that dies is told apart from one that fails, and all are gone when they are closed or their run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recompress.records import ModelRef
from tasks.workers import processes
from tasks.workers.job import Job
from tasks.workers.processes import Processes

WORKER = """
import json, os, sys, time
sys.stderr.write("small/3 distill:  20%|##        | 1/5\\rsmall/3 distill:  40%|####      | 2/5\\n")
for line in sys.stdin:
    job = json.loads(line)
    print(json.dumps({"say": f"{job['name']} at {os.environ['OMP_NUM_THREADS']}"}), flush=True)
    if job["name"] == "dies":
        os.kill(os.getpid(), 9)
    if job["name"] == "leaves":
        sys.exit(3)
    while job["name"] == "long":
        time.sleep(0.1)
    fails = {"error": "no such thing", "kind": "InputError"}
    print(json.dumps(fails if job["name"] == "fails" else {"did": True, "seconds": 1.5}), flush=True)
"""
RUN = """
import sys, time
from pathlib import Path
from tasks.workers import processes
from tests.tasks.workers.test_processes import WORKER, job
processes.WORKER = ("-c", WORKER)
workers = processes.Processes(Path("/"), 2, print)
for name in ("long", "long"):
    workers.give(job(name))
print(*(worker.process.pid for worker in workers._workers), flush=True)
time.sleep(120)
"""


def job(name: str) -> Job:
    model = ModelRef(name="baseline", kind="baseline", uri="file:///b", sha256="b" * 64)
    return Job(
        recipe="r", recipe_sha256="", variant="v", number=1, name=name, key="k", models=(model,), model=model, runs={}, dataset_sha256="", base_sha256=""
    )


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str]) -> Iterator[Processes]:
    monkeypatch.setattr(processes, "WORKER", ("-c", WORKER))
    monkeypatch.setenv("RECOMPRESS_THREADS", "3")
    workers = Processes(tmp_path, 2, lines.append)
    yield workers
    workers.close()


def test_jobs_end_as_their_workers_say_and_a_worker_serves_again(workers: Processes, lines: list[str]) -> None:
    workers.give(job("first"))
    assert workers.free == 1
    ended = workers.wait()
    assert (ended.job.name, ended.did, ended.seconds, ended.error, ended.gone) == ("first", True, 1.5, "", "")
    [worker] = workers._workers
    workers.give(job("fails"))
    ended = workers.wait()
    assert (ended.job.name, ended.error, ended.kind, ended.gone) == ("fails", "no such thing", "InputError", "")
    assert [w.process.pid for w in workers._workers] == [worker.process.pid], "what failed was the job and not the worker"
    assert {"first at 3", "fails at 3"} <= set(lines), "as many threads as a step has"
    assert any("40%" in line for line in lines), "a bar is shown where it stands"


@pytest.mark.parametrize(("name", "how"), [("dies", "ended by SIGKILL"), ("leaves", "ended with exit code 3")])
def test_a_worker_that_is_lost_is_replaced_by_another(workers: Processes, name: str, how: str) -> None:
    workers.give(job(name))
    ended = workers.wait()
    assert (ended.job.name, ended.gone, ended.error) == (name, how, "")
    assert (workers.free, workers._workers) == (2, [])
    workers.give(job("next"))
    assert workers.wait().gone == ""


def test_a_worker_that_died_while_it_had_nothing_to_do_costs_one_job_at_most(workers: Processes) -> None:
    workers.give(job("first"))
    workers.wait()
    [worker] = workers._workers
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    workers.give(job("second"))
    assert workers.wait().gone == "ended by SIGKILL"


def test_closing_ends_workers_that_are_at_work(workers: Processes) -> None:
    workers.give(job("long"))
    workers.give(job("long"))
    started = [psutil.Process(worker.process.pid) for worker in workers._workers]
    begun = time.monotonic()
    workers.close()
    assert not any(process.is_running() for process in started)
    assert time.monotonic() - begun < 60


def test_a_run_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    started = [psutil.Process(int(word)) for word in run.stdout.readline().split()]
    assert len(started) == 2
    os.kill(run.pid, signal.SIGKILL)
    run.wait(30)
    run.stdout.close()
    _, left = psutil.wait_procs(started, timeout=30)
    assert left == []
