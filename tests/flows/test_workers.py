"""Several at once: two recipes beside each other, variants beside each other, and on workers of a pool. What comes out is what comes out without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from recompress.ledger import Ledger
from tests.flows.toy_project import environment, make_project, run
from tests.servers import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
IDENTITY = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
WORKER = "tasks.workers.process"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing was run yet, with a commit."""
    folder = make_project(tmp_path_factory.mktemp("made"))
    for command in (["git", "add", "--all"], ["git", *IDENTITY, "commit", "--quiet", "--message", "all"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def alone(made: Path) -> dict[str, Any]:
    """What comes out without workers."""
    outcome = run(copy_of(made, "alone"), "run", "recipe.yaml")
    assert outcome["promotion"]["model"], outcome["summary"]
    return outcome


def copy_of(made: Path, name: str) -> Path:
    return Path(shutil.copytree(made, made.with_name(name), symlinks=True))


def digests(outcome: dict[str, Any]) -> dict[str, str]:
    return {evaluation["model"]: evaluation["model_sha256"] for evaluation in outcome["evaluations"]}


def kept(project: Path) -> Counter[str]:
    """How often each step was kept, by its key."""
    return Counter(entry.body["key"] for entry in Ledger(project / "ledger" / "ledger.db").entries("step-kept"))


def check_same(outcome: dict[str, Any], alone: dict[str, Any]) -> None:
    assert digests(outcome) == digests(alone)
    assert outcome["promotion"]["model"] == alone["promotion"]["model"]
    assert sorted(outcome["done"]) == sorted(alone["done"])


_begun: list[Begun] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test that failed has begun ends with it."""
    yield
    for begun in _begun:
        if begun.process.poll() is None:
            begun.process.terminate()
        begun.process.communicate()
    _begun.clear()


class Begun:
    """A run in a process of its own, read line by line."""

    def __init__(self, project: Path, *arguments: str, **variables: str) -> None:
        _begun.append(self)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", *arguments, "--json"],
            cwd=project,
            env=environment(project) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, moment: str) -> None:
        assert self.process.stderr is not None
        while not any(moment in line for line in self.lines):
            line = self.process.stderr.readline()
            assert line, "".join(self.lines)[-3000:]
            self.lines.append(line)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, code: int = 0) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=1500)
        self.lines += err.splitlines(keepends=True)
        assert self.process.returncode == code, "".join(self.lines)[-3000:]
        outcome: dict[str, Any] = json.loads(out) if out else {}
        return outcome


@pytest.fixture
def two_cores() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers need two cores")


def test_two_workers_make_what_one_makes_and_a_killed_one_is_replaced(made: Path, alone: dict[str, Any], two_cores: None) -> None:
    project = copy_of(made, "workers")
    begun = Begun(project, "recipe.yaml", "--workers", "2")
    begun.until("small/3 distill")
    workers = [child for child in begun.children() if WORKER in child.cmdline()]
    assert len(workers) == 2
    at_work = Ledger(project / "ledger" / "ledger.db")
    assert at_work.leases.holder("run toy") is not None
    for worker in workers:
        worker.kill()
    outcome = begun.end()
    check_same(outcome, alone)
    assert set(kept(project).values()) == {1}, "each step was kept once, whoever died over it"
    lines = "".join(begun.lines)
    assert "small/3 distill: its worker was ended by SIGKILL; it is given to another" in lines
    assert lines.index("small/4 dynamic_int8 · done") < lines.index("timing"), "time is measured when nothing else is done"
    assert run(project, "run", "recipe.yaml", "--workers", "2")["done"] == []
    assert run(project, "audit", "verify")["holds"] is True


def test_ctrl_c_ends_a_run_and_all_its_workers(made: Path, two_cores: None) -> None:
    project = copy_of(made, "stopped")
    begun = Begun(project, "recipe.yaml", "--workers", "2")
    begun.until("small/3 distill")
    children = begun.children()
    assert sum(WORKER in child.cmdline() for child in children) == 2
    begun.process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    begun.end(130)
    _, left = psutil.wait_procs(children, timeout=60)
    assert left == []
    assert time.monotonic() - sent < 60
    assert "Traceback" not in "".join(begun.lines)


def write_recipe(project: Path, name: str, **changed: Any) -> None:
    recipe = yaml.safe_load((project / "recipe.yaml").read_text())
    recipe |= {"name": name, "register": {"model": name}} | changed
    (project / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def test_two_recipes_run_at_once_share_a_step_and_the_same_one_twice_does_not(made: Path) -> None:
    """Their baseline takes longer than the second takes to begin."""
    project = copy_of(made, "two")
    baseline = {"epochs": 60, "learning_rate": 3.0e-3, "batch_size": 32, "max_length": 32, "precision": "fp32"}
    write_recipe(project, "one", baseline=baseline, variants={"int8": [{"dynamic_int8": {}}]})
    write_recipe(project, "other", baseline=baseline, variants={"sparse_60": [{"magnitude": {"sparsity": 0.6}}]})
    first = Begun(project, "one.yaml")
    first.until("baseline ·")
    second = Begun(project, "other.yaml")
    twice = Begun(project, "one.yaml")
    assert "recipe 'one' is being run already by tester (process" in twice.end(1)["error"]
    second.until("waiting for tester (process")
    outcomes = first.end(), second.end()
    assert ("baseline" in outcomes[0]["done"], "baseline" in outcomes[1]["reused"]) == (True, True)
    assert digests(outcomes[0])["baseline"] == digests(outcomes[1])["baseline"]
    assert set(kept(project).values()) == {1}
    assert [outcome["promotion"]["registered"] for outcome in outcomes] == ["one", "other"]
    assert all(outcome["promotion"]["model"] for outcome in outcomes), [outcome["summary"] for outcome in outcomes]
    assert not [line for outcome in (first, second) for line in outcome.lines if "Traceback" in line or "locked" in line]
    assert run(project, "audit", "verify")["holds"] is True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server with a process work pool: what names it in the environment."""
    home = tmp_path_factory.mktemp("server")
    port = str(free_port())
    variables = {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | variables
    serve = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (home / "log").open("w") as log, subprocess.Popen(serve, env=outside, stdout=log, stderr=log) as process:
        try:
            make = [sys.executable, "-m", "prefect", "work-pool", "create", "few", "--type", "process"]
            for _ in range(60):
                if subprocess.run(make, env=outside, capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(1)
            yield variables
        finally:
            process.terminate()


@contextmanager
def taking(project: Path, root: Path, server: dict[str, str]) -> Iterator[None]:
    """A worker of the pool while the block lasts; one that is asked to end waits for what it thinks that it still does."""
    take = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "few", "--limit", "2"]
    worker = subprocess.Popen(take, env=environment(project) | server | {"RECOMPRESS_ROOT": str(root)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        started = psutil.Process(worker.pid).children(recursive=True)
        for process in (*started, worker):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        worker.wait()


def test_workers_of_a_pool_make_what_the_run_itself_makes(made: Path, alone: dict[str, Any], server: dict[str, str]) -> None:
    """One of them first stands by another commit, and is refused before it takes any work."""
    project = copy_of(made, "pool")
    variants = yaml.safe_load((project / "recipe.yaml").read_text())["variants"]
    write_recipe(project, "few", variants={name: variants[name] for name in ("int8", "sparse")})
    for command in (["git", "add", "--all"], ["git", *IDENTITY, "commit", "--quiet", "--message", "few"]):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    elsewhere = copy_of(project, "elsewhere")
    (elsewhere / "policies" / "toy.yaml").write_text((elsewhere / "policies" / "toy.yaml").read_text() + "# another\n")
    with taking(project, elsewhere, server):
        refused = Begun(project, "few.yaml", "--workers", "2", "--pool", "few", **server).end(1)
    assert "takes no work: its commit is " in refused["error"]
    with taking(project, project, server):
        outcome = Begun(project, "few.yaml", "--workers", "2", "--pool", "few", **server).end()
    assert digests(outcome) == {name: digests(alone)[name] for name in ("baseline", "int8", "sparse")}
    assert {"int8/1 dynamic_int8", "sparse/1 magnitude", "sparse/2 finetune"} <= set(outcome["done"])
    assert outcome["promotion"]["model"] == "int8"
    assert set(kept(project).values()) == {1}
