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
    "doctor": ("doctor",),
}
PATIENCE = 7.0
"""So many times the measure at most; 1.1 to 5.5 were measured, beside eight others who computed."""
PATIENCE_OF_PLANS = 11.0
"""The same for a plan in which every step is found: its files are hashed, and its code is read."""


def processor_time(command: list[str], root: Path) -> float:
    """Seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=root, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def times_the_measure(command: list[str], root: Path, rounds: int = 4) -> float:
    """How many times the measure a command takes, the fastest of rounds by turns: a machine that is busy for a while is busy for both."""
    measure = [sys.executable, "-c", "import onnxruntime"]
    both = [(processor_time(measure, root), processor_time(command, root)) for _ in range(rounds)]
    return min(asked for _, asked in both) / min(unit for unit, _ in both)


def command(golden: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli", "--root", str(golden), *arguments]


def heavy_in(project: Path, root: Path, *question: str) -> list[str]:
    """What a command imports that it has to do without."""
    asked = subprocess.run([sys.executable, "-c", PROBE, "--root", str(project), *question], cwd=root, capture_output=True, text=True, check=False)
    heavy: list[str] = json.loads(asked.stderr.splitlines()[-1])
    return heavy


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_imports_nothing_heavy(question: str, golden: Path, root: Path) -> None:
    assert heavy_in(golden, root, *QUESTIONS[question]) == []


def test_a_plan_imports_methods_once(golden: Path, root: Path) -> None:
    """To read a recipe takes all methods, and with them torch; what was read is known the next time, and an edit is read again."""
    (golden / ".recompress").mkdir(exist_ok=True)
    recipe = golden / "recipe.yaml"
    assert "torch" in heavy_in(golden, root, "plan", str(recipe))
    assert heavy_in(golden, root, "plan", str(recipe)) == []
    recipe.write_text(recipe.read_text().replace("sparsity: 0.5", "sparsity: 0.6"))
    assert "torch" in heavy_in(golden, root, "plan", str(recipe))


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_costs_a_few_imports(question: str, golden: Path, root: Path) -> None:
    assert times_the_measure(command(golden, *QUESTIONS[question]), root) < PATIENCE
