"""A throw-away copy of the project in which DVC works, so that nothing half-done is ever seen in the project itself.

DVC writes ``dvc.lock`` as soon as a stage has run, and fills a folder file by file. Both happen on the bench, under ``.recompress/data``; what is whole and has
the right hash is renamed into the project, and ``dvc.lock`` changes there only when a person accepts it. The bench shares the project's cache. A process that
was killed leaves a bench behind, which the next one clears away.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recompress.data.version import with_present_versions
from recompress.errors import DataRefused, StorageError
from recompress.integrity.file_lock import cannot_lock
from tasks import QUIET
from tasks.data.dvc_config import quoted, read_config
from tasks.data.pins import Pin
from tasks.running.lock import OUT_OF_ROOM

log = logging.getLogger(__name__)
Say = Callable[[str], None]
BUSY = ("Unable to acquire lock", "is busy, it is being blocked", "is locked by another process")
SYSTEM_ERROR = re.compile(r"\[Errno (?P<number>\d+)\] (?P<where>.*)")
PATIENCE_S = 60.0
"""How long to wait for another DVC that works in the same project."""


class Bench:
    """The copy. ``folder`` holds what DVC put there; its name is new each time, because the DVC of a killed process may still be writing to the old one."""

    def __init__(self, root: Path, say: Say) -> None:
        self.root = root
        self.say = say
        self.folder = root / ".recompress" / "data" / f"bench-{uuid.uuid4().hex[:12]}"
        self.cache, self.remotes = read_config(root)
        (self.folder / ".dvc").mkdir(parents=True)
        config = f"[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n[cache]\n    dir = {quoted(self.cache)}\n    type = copy\n"
        (self.folder / ".dvc" / "config").write_text(config, encoding="utf-8")

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_dvc(self.folder, self.root, *arguments)

    def check_out(self, pin: Pin) -> Path | None:
        """The pinned folder from the cache; ``None`` when the cache does not hold all of it. Where not even its list of files is, DVC is not asked."""
        kept = self.cache if pin.legacy else self.cache / "files" / "md5"
        if not (kept / pin.md5[:2] / pin.md5[2:]).is_file():
            return None
        place = self.folder / pin.path
        place.parent.mkdir(parents=True, exist_ok=True)
        pointer = place.with_name(place.name + ".dvc")
        kind = "" if pin.legacy else "  hash: md5\n"
        pointer.write_text(f"outs:\n- md5: {pin.md5}\n{kind}  path: {place.name}\n", encoding="utf-8")
        completed = self.dvc("checkout", "--quiet", "--force", pointer.relative_to(self.folder).as_posix())
        pointer.unlink()
        return place if completed.returncode == 0 and place.is_dir() else None

    def add(self, directory: Path) -> Path:
        """A copy of ``directory``, and the same bytes in the cache."""
        copy = self.folder / "taken"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy, copy_function=shutil.copyfile)
        self._must("add", "taken")  # with --quiet DVC does not say what a full or read-only disk is to it
        return copy

    def reproduce(self, stage: str, sources: list[str]) -> Path:
        """Run a stage and those before it on copies of ``sources``; gives the ``dvc.lock`` that came out. Raises ``DataRefused`` with what the stage said.

        The copy of ``params.yaml`` names the code that is running, whatever the project's own names: what comes out is compared with its pin, or accepted.
        """
        for name in ("dvc.yaml", "dvc.lock", ".dvcignore"):
            if (self.root / name).is_file():
                shutil.copyfile(self.root / name, self.folder / name)
        (self.folder / "params.yaml").write_bytes(with_present_versions(self.root / "params.yaml").encode())
        for source in sources:
            shutil.copytree(self.root / source, self.folder / source, copy_function=shutil.copyfile, dirs_exist_ok=True)
        self._must("repro", "--force", "--no-run-cache", stage)
        return self.folder / "dvc.lock"

    def _must(self, *arguments: str) -> None:
        completed = self.dvc(*arguments)
        if completed.returncode != 0:
            told = said_last(completed)
            system = SYSTEM_ERROR.search(told)
            if system and int(system["number"]) in OUT_OF_ROOM:
                raise StorageError(
                    f"DVC cannot write: {OUT_OF_ROOM[int(system['number'])]}, {system['where']}; make room there, or choose a place that you may write to"
                )
            raise DataRefused(f"dvc {arguments[0]}: {told}")


@contextmanager
def bench(root: Path, say: Say = log.info) -> Iterator[Bench]:
    """The bench for as long as the block lasts; one process at a time, others wait."""
    home = root / ".recompress" / "data"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process brings data here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise cannot_lock(home / "lock", error) from None
        for left_over in home.glob("bench-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        workbench = Bench(root, say)
        try:
            yield workbench
        finally:
            shutil.rmtree(workbench.folder, ignore_errors=True)


def run_dvc(folder: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """DVC's command in ``folder``, with the Python that runs us and nothing sent home. Waits while another DVC holds its lock."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    site = root / ".recompress" / "data" / "site"
    environment = {**os.environ, **QUIET, "PATH": path, "DVC_SITE_CACHE_DIR": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    deadline, pause = time.monotonic() + PATIENCE_S, 0.2
    while True:
        completed = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if completed.returncode == 0 or not any(word in completed.stderr for word in BUSY) or time.monotonic() > deadline:
            return completed
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def said_last(completed: subprocess.CompletedProcess[str]) -> str:
    """The line that tells a person why: what a stage said before DVC said that it failed, or what DVC said itself."""
    lines = [line.strip() for line in (completed.stderr + "\n" + completed.stdout).splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("ERROR:")]
    if errors and "failed to run:" in lines[errors[0]] and errors[0] > 0:
        return lines[errors[0] - 1]
    return (lines[errors[0]].removeprefix("ERROR:").strip() if errors else lines[-1] if lines else f"exit code {completed.returncode}")[:300]
