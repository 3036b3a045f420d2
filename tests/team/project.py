"""A team's project: its base on a hub of this machine, its recipe watched, its stores those of the set-up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.flows.toy_project import make_project
from tests.tasks.watch.hubs import NAME, Commit, Repository, a_hub
from tests.team.services import Service, Team
from tests.tiny import tiny_checkpoint

VARIANTS = "variants:\n  int8:\n    - dynamic_int8: {}\n  sparse:\n    - magnitude: {sparsity: 0.5}\n"
WATCH = "every: 5s\nsettle: 0s\nlease: 10s\nworkers: 2\npool: recompress\n"
OWN = {"GIT_AUTHOR_NAME": "ada", "GIT_AUTHOR_EMAIL": "ada@example.org", "GIT_COMMITTER_NAME": "ada", "GIT_COMMITTER_EMAIL": "ada@example.org"}
RECIPE = "recipes/toy.yaml"


def base_files(folder: Path, seed: int) -> dict[str, bytes]:
    """A tiny encoder as a hub holds one."""
    from recompress.models.checkpoint import save

    save(tiny_checkpoint("text-classification", layers=2, seed=seed), folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Project:
    """A project of the team, with two workers and a watcher of its own."""

    def __init__(self, folder: Path, team: Team, hub: Repository, address: str, tell: str = "") -> None:
        self.folder, self.team, self.hub, self.tell = folder, team, hub, tell
        self.fast = {"PREFECT_WORKER_QUERY_SECONDS": "1", "OMP_NUM_THREADS": "1"}
        self.of_hub = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(folder / ".hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        self.services = {name: self._service(name) for name in ("worker-1", "worker-2", "watcher")}

    def _service(self, name: str) -> Service:
        more = {"RECOMPRESS_TELL": self.tell} if name == "watcher" and self.tell else {}
        return self.team.service(name, self.folder, **self.fast, **self.of_hub, **OWN, **more)

    def start(self) -> None:
        for service in self.services.values():
            service.start()

    def end(self) -> None:
        for service in reversed(self.services.values()):
            service.kill()

    def commit_base(self, seed: int) -> Commit:
        """New weights on the hub."""
        files = base_files(self.folder.with_name(f"{self.folder.name}-base-{seed}"), seed)
        self.hub.commits.append(Commit(files, age=timedelta(days=2)))
        return self.hub.head

    def settings(self, text: str) -> None:
        """``watch.yaml``, as it is read before each look."""
        partial = self.folder / ".watch.yaml"
        partial.write_text(text)
        partial.replace(self.folder / "watch.yaml")

    def git(self, *arguments: str) -> str:
        own = os.environ | OWN
        return subprocess.run(["git", *arguments], cwd=self.folder, env=own, check=True, capture_output=True, text=True).stdout.strip()

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """``recompress … --json`` as somebody of the team asks it: in the watcher's environment."""
        command = [sys.executable, "-m", "flows.cli", *arguments, "--json"]
        own = self.services["watcher"].environment
        done = subprocess.run(command, cwd=self.folder, env=own, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code, done.stderr[-3000:] + done.stdout[-3000:]
        return json.loads(done.stdout)

    def run_log(self) -> str:
        """What the runs that the watcher made have said so far."""
        logs = sorted((self.folder / ".recompress" / "watch").glob("*.log"), key=lambda log: log.stat().st_mtime)
        return "".join(log.read_text(errors="replace") for log in logs)

    def wait(self, what: Callable[[], Any], seconds: float = 1200, *, may_fail: bool = False) -> Any:
        """What there is to find, as soon as it is there; no longer than a run of the watcher fails, where that is not part of the test."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (may_fail or "toy: failed:" not in self.services["watcher"].said()):
            if found := what():
                return found
            time.sleep(0.5)
        said = {name: service.said()[-1500:] for name, service in (self.services | self.team.services).items()}
        raise AssertionError(f"{self.run_log()[-3000:]}\n" + "\n".join(f"--- {name}\n{text}" for name, text in said.items()))

    def champion(self) -> dict[str, Any]:
        """What the registry and the ledger say of the model in production."""
        trace: dict[str, Any] = self.ask("audit", "trace", "toy@champion")
        return trace


@contextmanager
def a_project(folder: Path, team: Team, *, watch: str = WATCH, tell: str = "", seed: int = 0) -> Iterator[Project]:
    """The project, pinned to the first commit of a hub's repository, committed and at rest. Its services end with the block."""
    hub = Repository([Commit(base_files(folder.with_name(f"{folder.name}-base-{seed}"), seed), age=timedelta(days=10))])
    make_project(folder)
    (folder / "recipes").mkdir()
    text = (folder / "recipe.yaml").read_text().replace("unlabelled: words, ", "").replace("epochs: 3", "epochs: 1")
    pinned = text[: text.index("base:")] + f"base: {{model: {NAME}, revision: {hub.head.id}}}\n" + text[text.index("seed:") :]
    (folder / RECIPE).write_text(pinned[: pinned.index("variants:")] + VARIANTS + pinned[pinned.index("policy:") :])
    (folder / "recipe.yaml").unlink()
    shutil.rmtree(folder / "base")
    (folder / "watch.yaml").write_text(watch)
    (folder / ".gitignore").write_text((folder / ".gitignore").read_text() + "/.hf\n/evidence\n")
    with a_hub(hub) as address:
        project = Project(folder, team, hub, address, tell)
        project.git("add", ".")
        project.git("commit", "--quiet", "--message", "a project")
        try:
            yield project
        finally:
            project.end()
