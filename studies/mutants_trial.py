"""Tests of a mutated copy, in a child of a process that has the large libraries imported already and nothing of the project.

Importing torch and transformers takes longer than most of the tests; a fork takes milliseconds. Each slot has a copy of the project of its own: the mutated
file is written, pytest runs in the child with the copy before all else on the path, and the file is put back.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MUTATED = ("recompress", "tasks", "flows")
OURS = (*MUTATED, "tests", "studies")
LIGHT = (
    "numpy", "scipy.stats", "pydantic", "sqlalchemy.orm", "cryptography.hazmat.primitives.serialization", "cryptography.hazmat.primitives.asymmetric.ed25519",
    "hypothesis.strategies", "hypothesis.extra.numpy", "pytest", "rfc8785", "jaxtyping", "yaml", "tqdm.auto",
)  # fmt: skip
HEAVY = (
    "torch", "torch.nn.utils.parametrize", "torch._dynamo", "pandas", "pyarrow.parquet", "safetensors.torch", "accelerate", "peft", "onnx", "onnxruntime",
    "transformers", "transformers.trainer", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2", "seqeval.metrics",
    "sklearn.metrics", "jinja2", "matplotlib.figure",
)  # fmt: skip
SURVIVED, CAUGHT = 0, 1
OUTCOMES = {SURVIVED: "survived", CAUGHT: "caught", 2: "does not import", 4: "no such test", 5: "no such test"}


def import_libraries(*, light: bool = False) -> None:
    """What tests import of other people's, once for all children. Whatever is not installed is left to the tests that skip without it."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in LIGHT if light else LIGHT + HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if ours := sorted(name for name in sys.modules if name.split(".")[0] in OURS[:-1]):
        raise SystemExit(f"{ours[0]} was imported before the fork: children would test it instead of their mutated copy")


def copy_project(root: Path, to: Path) -> None:
    """The files that git tracks, or would: with compiled code beside them that is checked against its source by content, since a mutant may have the same length
    and come within the same second."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, to / name)
    for package in MUTATED:
        for path in (to / package).rglob("*.py"):
            py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


@dataclass(frozen=True)
class Job:
    """Tests to run, in a copy in which one file may read otherwise."""

    key: str
    tests: Sequence[str]
    limit: float
    """Seconds."""
    file: str = ""
    text: str = ""


@dataclass(frozen=True)
class Outcome:
    key: str
    result: str
    """caught, survived, out of time, or what went wrong."""
    seconds: float
    by: str = ""
    """The first test that failed."""
    log: str = field(default="", repr=False)


@dataclass
class _Slot:
    copy: Path
    job: Job | None = None
    pid: int = 0
    started: float = 0.0


def run_jobs(jobs: Sequence[Job], copies: Sequence[Path], root: Path) -> Iterator[Outcome]:
    """Each job in the next copy that is free; outcomes as they come."""
    waiting, slots = list(jobs), [_Slot(copy) for copy in copies]
    while waiting or any(slot.job for slot in slots):
        for slot in slots:
            if slot.job is None and waiting:
                slot.job, slot.started = waiting.pop(0), time.monotonic()
                slot.pid = _start(slot.job, slot.copy)
            elif slot.job is not None and (outcome := _ended(slot)):
                if slot.job.file:
                    shutil.copyfile(root / slot.job.file, slot.copy / slot.job.file)
                slot.job = None
                yield outcome
        time.sleep(0.02)


def _start(job: Job, copy: Path) -> int:
    if job.file:
        (copy / job.file).write_text(job.text, encoding="utf-8")
    if pid := os.fork():
        return pid
    _in_child(lambda: _run_tests(job, copy), copy.with_suffix(".log"))
    raise AssertionError("a child never comes here")


def _in_child(run: Callable[[], int], log: Path) -> None:
    code = 70
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_tests(job: Job, copy: Path) -> int:
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    # as in tests/conftest.py, but that nobody looks for the smallest example of what a mutant breaks
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("mutants", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow], phases=phases)

    os.chdir(copy)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(Path(__file__).parent.parent)))]
    os.environ["PYTHONPATH"] = str(copy)
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    sys.dont_write_bytecode = bool(job.file)  # what pytest makes of the tests is kept from the run without a mutant
    importlib.invalidate_caches()
    options = [
        "-x",
        "-q",
        "-W",
        "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "-rfE",
        f"--rootdir={copy}",
        f"--basetemp={copy.with_suffix('.tmp')}",
    ]
    return int(pytest.main([*options, *job.tests]))


def _ended(slot: _Slot) -> Outcome | None:
    assert slot.job is not None
    seconds = time.monotonic() - slot.started
    pid, status = os.waitpid(slot.pid, os.WNOHANG)
    if not pid and seconds < slot.job.limit:
        return None
    if not pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(slot.pid, signal.SIGKILL)
        os.waitpid(slot.pid, 0)
    log = slot.copy.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    code = os.waitstatus_to_exitcode(status)
    result = OUTCOMES.get(code, f"died with {code}") if pid else "out of time"
    first = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log, re.MULTILINE)
    return Outcome(slot.job.key, result, round(seconds, 1), first[1] if first else "", log)
