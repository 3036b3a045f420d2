"""How long people wait for an answer: commands that have nothing to train, each a new process, as ratios to ``python -c "import onnxruntime"`` of the same run.

    make run && python -m studies.answers --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"

1. Questions about the project in which the quickstart was run (``--project``, this one if left out), its run again among them, which finds everything done.
2. ``watch --once`` over recipes whose bases lie on a hub (the real client; the server is this process), when nothing is new: nine recipes, which have 54 sources, and
   fifty, which have 300.

Rounds by turns; the median of the rounds. Writes ``studies/results/answers.json`` and ``.md``. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.ledger import Ledger
from studies.written import ROOT, arguments, write
from tests.hub import HubHandler, serving
from tests.tasks.watch.hubs import NAME, Repository, first_commit
from tests.tasks.watch.small_project import make_small_project

RECIPE, MODEL, TEXT = "recipes/quickstart.yaml", "quickstart@champion", "Sort a list in place."
IMPORT = "python -c 'import onnxruntime'"
FEW, MANY = 9, 50
SOURCES_EACH = 6
"""Base, data, recipe, policy, code, packages."""
ROUNDS = 5
QUESTIONS: dict[str, Sequence[str]] = {
    "plan": ("plan", RECIPE),
    "run, all found": ("run", RECIPE, "--json"),
    "predict": ("predict", MODEL, TEXT),
    "audit trace": ("audit", "trace", MODEL),
    "audit verify": ("audit", "verify"),
    "report": ("report", RECIPE),
    "methods": ("methods",),
    "doctor": ("doctor",),
}
LIMITS_S = {"plan": 5.0, "run, all found": 8.0, f"watch --once, {FEW} recipes": 5.0}
"""What issues asked for, in seconds that pass."""


@contextmanager
def hub() -> Iterator[str]:
    """The address of a hub on which every ``some/encoder-N`` is the same model."""
    repository: Repository = first_commit()

    class Hub(HubHandler):
        def get(self) -> None:
            asked = re.search(rf"{NAME}-\d+", self.path)
            assert asked is not None
            self.answer(*replace(repository, name=asked[0]).answer(self.path.replace(asked[0], NAME)))

    with serving(Hub) as address:
        yield address


def watched(root: Path, recipes: int) -> Path:
    """A project with so many recipes, each with a base of its own on the hub, that were run before anybody watched."""
    make_small_project(root, model=NAME, revision=first_commit().head.id, sha256="a" * 64)
    text = (root / "recipes" / "toy.yaml").read_text(encoding="utf-8")
    (root / "recipes" / "toy.yaml").unlink()
    ledger = Ledger(root / "ledger" / "ledger.db", create=True)
    for number in range(recipes):
        changed = (
            text.replace("name: toy\nbench", f"name: toy-{number}\nbench").replace(NAME, f"{NAME}-{number}").replace("{model: toy}", f"{{model: toy-{number}}}")
        )
        (root / "recipes" / f"toy-{number}.yaml").write_text(changed, encoding="utf-8")
        ledger.append("policy-recorded", {"recipe": f"toy-{number}", "policy_sha256": "0" * 64}, actor="somebody")
    return root


def begin(root: Path) -> None:
    """The first look at each recipe, as if each step of a run would be found: nothing of this project was ever trained."""
    from recompress.watch.settings import WatchSettings
    from tasks.watch.watcher import Watcher

    watcher = Watcher(root.resolve(), WatchSettings(settle="0s"), print, all_found=lambda *_: True)
    for recipe in sorted((root / "recipes").glob("*.yaml")):
        watcher.look(recipe)


def took(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds that passed, seconds of the processor (its own and of all that it started), and what it said."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def measure(project: Path) -> dict[str, Any]:
    """Every command in every round, after one round that warms the disk's cache and records the first look."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RECOMPRESS_", "PREFECT_", "MLFLOW_"))}
    ask = [sys.executable, "-m", "flows.cli", "--root"]
    commands: dict[str, Sequence[str]] = {IMPORT: [sys.executable, "-c", "import onnxruntime"]}
    commands |= {name: [*ask, str(project), *rest] for name, rest in QUESTIONS.items()}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recompress-answers-")))
        environment = clean | {"HF_ENDPOINT": stack.enter_context(hub()), "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "RECOMPRESS_ACTOR": "watcher"}
        for count in (FEW, MANY):
            project_of = watched(home / str(count), count)
            begins = f"from pathlib import Path; from studies.answers import begin; begin(Path({str(project_of)!r}))"
            took([sys.executable, "-c", begins], environment)
            commands[f"watch --once, {count} recipes"] = [*ask, str(project_of), "watch", "--once"]
        found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
        for number in range(ROUNDS + 1):
            for name in commands if number % 2 else reversed(list(commands)):
                found[name].append(took(commands[name], environment))
                print(f"{number} {name}: {found[name][-1][0]:.2f} s", file=sys.stderr)
    for count in (FEW, MANY):
        assert all(said.count("looked, nothing new") == count for *_, said in found[f"watch --once, {count} recipes"][1:])
    assert all(json.loads(said)["done"] == [] for *_, said in found["run, all found"])
    return {name: {"seconds": [one[0] for one in rounds[1:]], "processor_seconds": [one[1] for one in rounds[1:]]} for name, rounds in found.items()}


def page(results: dict[str, Any]) -> str:
    """The results for people."""
    commands = results["commands"]
    unit = statistics.median(commands[IMPORT]["processor_seconds"])
    lines = [
        "# How long people wait for an answer\n",
        f"`python -m studies.answers`, {results['date']}, {results['machine']}; load {results['load_before']:.1f} before it began. Median of {ROUNDS} rounds by turns, each command",
        f"a new process in the project of the quickstart; a look is one at recipes with {SOURCES_EACH} sources each, of which one lies on a hub on this machine.\n",
        f"| command | s that pass (least to most) | limit, s | s of the processor | times `{IMPORT}` |\n|---|---:|---:|---:|---:|",
    ]
    for name, figures in commands.items():
        passed, used = figures["seconds"], statistics.median(figures["processor_seconds"])
        limit = f"{LIMITS_S[name]:.0f}" if name in LIMITS_S else ""
        lines.append(f"| {name} | {statistics.median(passed):.2f} ({min(passed):.2f} to {max(passed):.2f}) | {limit} | {used:.2f} | {used / unit:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what came out."""
    told = arguments(__doc__, in_a_project=True)
    load = os.getloadavg()[0]
    write("answers", told, {"load_before": load, "commands": measure(told.project.resolve())}, page)


if __name__ == "__main__":
    main()
