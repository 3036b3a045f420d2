"""Times from which nobody can tell are taken anew in the next run, and no others are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.gate.rounds import too_busy
from recompress.ledger import Ledger
from recompress.policy import Policy
from recompress.records import DatasetRef, Evaluation, ModelRef
from tasks.running.recompression import Recompression, listener
from tasks.steps.evaluate import measure_speeds
from tasks.tracking.track import Result
from tests.promotion.test_pins import LOOSE

DATASET = DatasetRef(name="tiny", benchmark="text-classification", uri="data", sha256="d" * 64, md5="0", labels=("a",), slices=(), rows={"test": 4})
MODELS = [ModelRef(name=name, kind="variant", uri=name, sha256=digit * 64) for name, digit in (("calm", "1"), ("torn", "2"))]
MEANT = ("latency_ratio_runtime", "processor_ratio_runtime")
"""What a limit on speed is about where the policy says nothing else."""
QUIET, TORN = [3.0] * 8, [1.1, 2.9] * 4
"""Ratios to the baseline, round by round; twice as fast is asked for."""


class Project:
    """MLflow and the ledger as far as steps ask them, and a machine that gives each model the rounds that it is told to. ``timed`` are the models of each round of timing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, Any] | None) -> None:
        self.kept: dict[str, Result] = {}
        self.rounds = {"calm": QUIET, "torn": TORN}
        self.timed: list[list[str]] = []
        self.root = tmp_path
        policy = LOOSE | ({"limits": limits} if limits else {})
        self.plan = SimpleNamespace(recipe=SimpleNamespace(name="toy"), policy=Policy.model_validate(policy), sha256="9" * 64)
        monkeypatch.setattr("recompress.measure.speed.measure_rounds", self.measure)
        monkeypatch.setattr("tasks.steps.evaluate.examples_of", lambda *_: [])

    def measure(self, places: Sequence[Path], *_: object, **__: object) -> list[Any]:
        self.timed.append([place.name for place in places])
        results = [{"metrics": {"latency_ratio": 2.0}, "rounds": dict.fromkeys(MEANT, self.rounds[p.name])} for p in places]
        return [SimpleNamespace(_asdict=lambda result=result: result | {"load": {"processor_share": 1.0, "steal_share": 0.0}}) for result in results]

    def run(self) -> Recompression:
        run = Recompression.__new__(Recompression)
        run.root, run.work, run.plan, run.training, run.done, run.reused = self.root, self.root / "work", self.plan, 1, [], []  # type: ignore[assignment]
        run.store = SimpleNamespace(fetch=lambda uri: self.root / uri)  # type: ignore[assignment]
        run.__dict__["memory"] = SimpleNamespace(recall=lambda key, *_: self.kept.get(key), keep=self.keep)
        run.recipe_lease, run.__dict__["ledger"] = None, Ledger(self.root / "ledger.db")
        run._runs = {name: name for name in ("", "calm", "torn")}
        return run

    def keep(self, key: str, *rest: Any) -> Result:
        self.kept[key] = rest[3]
        return self.kept[key]

    def speeds(self, run: Recompression | None = None) -> dict[str, tuple[float, ...]]:
        baseline = ModelRef(name="baseline", kind="baseline", uri="baseline", sha256="b" * 64)
        results = measure_speeds(run or self.run(), MODELS, baseline, DATASET)
        return {model.name: result["rounds"][MEANT[0]] for model, result in zip(MODELS, results, strict=True)}


def test_a_busy_machines_times_are_taken_anew_in_the_next_run_and_once_in_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = Project(monkeypatch, tmp_path, {"times_faster": 2.0})
    first = project.run()
    assert project.speeds(first) == project.speeds(first) == {"calm": QUIET, "torn": TORN}
    assert project.timed == [["calm", "torn"]], "dev and test of one run share them"
    assert project.speeds() == {"calm": QUIET, "torn": TORN}
    project.rounds["torn"] = QUIET
    assert project.speeds() == {"calm": QUIET, "torn": QUIET}
    assert project.speeds() == {"calm": QUIET, "torn": QUIET}
    assert project.timed == [["calm", "torn"], ["torn"], ["torn"]], "once it was quiet they are found again"


def test_a_run_says_why_it_takes_times_anew_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project, heard = Project(monkeypatch, tmp_path, {"times_faster": 2.0}), list[str]()
    project.speeds()
    with listener(heard.append):
        project.speeds()
    [line] = [line for line in heard if "again" in line and line.startswith("torn/speed")]
    assert line.startswith("torn/speed is done again: 2.00 times as fast as the baseline in full precision in the same runtime (8 rounds)")
    assert not [line for line in heard if line.startswith("calm/speed")]


def test_a_model_that_is_too_slow_in_every_round_is_not_timed_until_it_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = Project(monkeypatch, tmp_path, {"times_faster": 2.0})
    project.rounds["torn"] = [1.5, 1.6] * 4
    assert project.speeds() == project.speeds()
    assert len(project.timed) == 1


def test_without_a_limit_on_speed_noise_is_nobodys_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = Project(monkeypatch, tmp_path, None)
    assert project.speeds() == project.speeds()
    assert len(project.timed) == 1


def test_what_cannot_be_told_names_the_limit_and_other_refusals_are_none_of_it() -> None:
    policy = Policy.model_validate(LOOSE | {"limits": {"times_faster": 2.0, "latency_p95_ms": 5.0, "machine": {"cores": "2"}}})

    def told(rounds: dict[str, list[float]], cores: str = "2") -> str:
        load, machine = {"processor_share": 1.0, "steal_share": 0.0}, {"cores": cores}
        return too_busy(policy, Evaluation.model_validate({"model": "m", "model_sha256": "1" * 64, "dataset_sha256": "d" * 64, "metrics": {}, "slices": {}, "machine": machine, "rounds": rounds, "load": load}))  # fmt: skip

    ratios = dict.fromkeys(MEANT, TORN)
    latencies = {"latency_p95_ms": [4.0, 6.0] * 4, "processor_p95_ms": [4.0, 6.0] * 4}
    assert "times as fast" in told(ratios)
    mostly = [1.0, 2.6, 2.8, 3.0, 1.2, 2.7, 2.9, 3.1]  # twice as fast in six of eight, which is no proof at the policy's level
    assert "times as fast" in told(dict.fromkeys(MEANT, mostly))
    assert "ms for one of the longer texts" in told(latencies)
    assert told(latencies, cores="8") == told({}) == "", "another machine and missing rounds are refusals of their own"
