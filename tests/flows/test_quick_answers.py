"""Questions are answered with the processor time of a few imports: none of them waits for MLflow, Prefect, torch or transformers.

The measure is ``python -c "import onnxruntime"``, a fifth of a second of an idle machine, taken in the same run; the fastest of several counts on both sides.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("mlflow", "prefect", "torch", "transformers", "pandas", "scipy", "great_expectations", "dvc", "onnx")
PROBE = f"""
import atexit, json, runpy, sys
sys.argv = ["recompress", *sys.argv[1:]]
atexit.register(lambda: print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr))
runpy.run_module("flows.cli", run_name="__main__")
"""
QUESTIONS = {
    "predict": ("predict", "toy@champion", "leo kula jana"),
    "audit verify": ("audit", "verify"),
    "audit trace": ("audit", "trace", "toy@champion"),
    "audit log": ("audit", "log"),
    "approve": ("approve",),
    "methods": ("methods",),
    "one method": ("methods", "wanda"),
}
PATIENCE = 8.0
"""So many times the measure at most; 3 to 6 were measured."""


def processor_time(command: list[str], root: Path, times: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=root, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def command(golden: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli", "--root", str(golden), *arguments]


@pytest.fixture(scope="module")
def measure() -> float:
    root = Path(__file__).parent
    return processor_time([sys.executable, "-c", "import onnxruntime"], root)


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_imports_nothing_heavy(question: str, golden: Path, root: Path) -> None:
    asked = subprocess.run([sys.executable, "-c", PROBE, "--root", str(golden), *QUESTIONS[question]], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(asked.stderr.splitlines()[-1]) == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_costs_a_few_imports(question: str, golden: Path, root: Path, measure: float) -> None:
    assert processor_time(command(golden, *QUESTIONS[question]), root) < PATIENCE * measure
