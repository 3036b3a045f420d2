"""A worker does the step that its job names, with the bytes that it names, or refuses in one line before it has done anything."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recompress.errors import DataRefused, InputError, IntegrityError
from recompress.integrity.digest import sha256_file
from recompress.records import DatasetRef, ModelRef
from tasks.running.recompression import Recompression, Wanted
from tasks.workers import at_work
from tasks.workers.at_work import AtWork, CheckedStore, Workshop
from tasks.workers.job import Job, StandsElsewhere
from tasks.workers.standing import standing_of

MODEL = ModelRef(name="baseline", kind="baseline", uri="file:///b", sha256="b" * 64)
STANDING = {"commit": "abc", "constraints.txt": "", "packages": "p", "threads": "1"}


def job(key: str = "cut", **changed: Any) -> Job:
    told: dict[str, Any] = {"recipe": "r.yaml", "recipe_sha256": "1" * 64, "variant": "small", "number": 2, "name": "small/2 cut", "key": key}
    told |= {"models": (MODEL,), "model": MODEL, "runs": {"": "run of all", "small": "run of small"}, "dataset_sha256": "d" * 64, "base_sha256": "a" * 64}
    return Job(**told | {"standing": STANDING} | changed)


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done. The step ``cut`` asks for what its teacher says first, and something else would follow on it; ``known`` is there already."""
    done: list[str] = []

    def compress_step(run: AtWork, variant: str, number: int, step: Any, model: ModelRef, models: Any, dataset: Any) -> None:
        assert (run._runs, variant, number, step, model) == ({"": "run of all", "small": "run of small"}, "small", 2, "the second", MODEL)
        for key in ("teacher", "cut", "another"):
            run.step(key, key=key, run="small", do=lambda _: ({}, {}))

    def obtain(self: Recompression, step: Wanted) -> dict[str, Any]:
        if step.key not in ("known", "teacher"):
            done.append(step.name)
            self.done.append(step.name)
        return {}

    monkeypatch.setattr(at_work, "compress_step", compress_step)
    monkeypatch.setattr(Recompression, "obtain", obtain)
    monkeypatch.setattr(AtWork, "memory", SimpleNamespace(recall=lambda key, *_: {} if key == "teacher" else None))
    monkeypatch.setattr(AtWork, "ledger", SimpleNamespace())
    return done


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path, STANDING, lambda _: None)
    dataset = DatasetRef(name="d", benchmark="text-classification", uri="/d", sha256="d" * 64, md5="e" * 32, labels=(), slices=(), rows={})
    plan: Any = SimpleNamespace(steps={"small": ["the first", "the second"]})
    workshop._known["1" * 64] = plan, dataset, ModelRef(name="base", kind="base", uri="/a", sha256="a" * 64)
    return workshop


def test_a_worker_does_its_step_and_stops(workshop: Workshop, did: list[str]) -> None:
    assert workshop.do(job()) is True
    assert did == ["cut"]


def test_what_a_teacher_says_is_a_job_of_its_own_and_what_is_found_was_not_done(workshop: Workshop, did: list[str]) -> None:
    assert workshop.do(job("teacher")) is False
    assert did == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"standing": STANDING | {"commit": "abd-dirty"}}, "its commit is abc, the run's is abd-dirty"),
        ({"standing": STANDING | {"constraints.txt": "e" * 64}}, f"its constraints.txt is none, the run's is {'e' * 60}"),
        ({"dataset_sha256": "e" * 64}, "its data has sha256 dddddddddddd…, the run's eeeeeeeeeeee…"),
        ({"base_sha256": "e" * 64}, "its base has sha256 aaaaaaaaaaaa…, the run's eeeeeeeeeeee…"),
        ({"key": "other"}, "its code or packages give cut the key cut…, the run's give small/2 cut other…"),
    ],
    ids=["commit", "constraints", "data", "base", "code"],
)
def test_a_worker_that_stands_otherwise_takes_no_work(workshop: Workshop, did: list[str], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(StandsElsewhere, match=f"^worker .* takes no work: {re.escape(message)}"):
        workshop.do(job(**changed))
    assert did == []


def test_a_recipe_that_no_commit_holds_comes_with_the_job_and_is_held_against_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch tries a pin that nobody has merged: the recipe lies in a folder of the watcher's machine."""
    read: list[Path] = []

    def read_plan(recipe: str, root: Path) -> Any:
        read.append(Path(recipe))
        return SimpleNamespace(sha256=sha256_file(Path(recipe)))

    monkeypatch.setattr(at_work, "read_plan", read_plan)
    given = job(recipe=".recompress/watch/0123/toy.yaml", recipe_sha256="2" * 64, recipe_text="name: toy\n")
    with pytest.raises(StandsElsewhere, match=r"takes no work: its \.recompress/watch/0123/toy\.yaml is another recipe than the run's"):
        Workshop(tmp_path, STANDING, lambda _: None).do(given)
    assert [path.relative_to(tmp_path) for path in read] == [Path(f".recompress/jobs/{'2' * 16}/toy.yaml")]
    assert read[0].read_text() == "name: toy\n"


@pytest.mark.parametrize("error", [InputError("recipe r.yaml does not exist"), DataRefused("raw/t.csv is not what is pinned")], ids=["recipe", "data"])
def test_what_changed_in_a_worker_s_folder_since_the_run_began_is_no_fault_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """The run has read both: whoever moved them may move them back, or the next look sees them."""

    def read_plan(*_: Any) -> None:
        raise error

    monkeypatch.setattr(at_work, "read_plan", read_plan)
    with pytest.raises(StandsElsewhere, match=f"^worker .* takes no work: it cannot have what the run began with: {error}$") as raised:
        Workshop(tmp_path, STANDING, lambda _: None).do(job())
    assert raised.value.exit_code == 1


def test_what_a_job_names_is_hashed_before_it_is_used(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("weights")
    digest = sha256_file(model)
    assert CheckedStore(tmp_path, {model.as_uri(): digest}).fetch(model.as_uri()) == model
    assert CheckedStore(tmp_path, {}).fetch(model.as_uri()) == model
    model.write_text("other weights")
    with pytest.raises(IntegrityError, match="has another sha256"):
        CheckedStore(tmp_path, {model.as_uri(): digest}).fetch(model.as_uri())


def test_a_project_stands_by_its_commit_its_constraints_and_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = standing_of(tmp_path)
    assert (before["commit"], before["constraints.txt"], before["threads"]) == ("", "", "1")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    monkeypatch.setenv("RECOMPRESS_THREADS", "2")
    after = standing_of(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"constraints.txt", "threads"}
    assert after["constraints.txt"] == sha256_file(tmp_path / "constraints.txt")
