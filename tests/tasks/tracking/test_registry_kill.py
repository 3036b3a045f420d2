"""Promotions over the real MLflow that are killed, or that race."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from recompress.promotion import HEAD_TAG, Promoter, champion_by_ledger
from recompress.promotion.states import UNFINISHED, progress_of
from tests.children import Child
from tests.tasks.tracking.promoting import MODEL, Project
from tests.tasks.tracking.stores import new_store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def killed(root: Path, directory: Path, point: str) -> None:
    def crash(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    project = Project(root)
    project.registry.crash_point = crash
    project.promoter = Promoter(project.ledger, project.registry, "ada", crash_point=crash)
    project.promote(directory)


@pytest.mark.parametrize("point", ["registry:half-uploaded", "registry:uploaded", "promotion:version-made", "promotion:alias-moved", "promotion:committed"])
def test_a_promotion_that_is_killed_is_finished_by_the_next(tmp_path: Path, candidates: list[Path], point: str) -> None:
    root = new_store(tmp_path / "project")
    worker = Child(target=killed, args=(root, candidates[0], point))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    project = Project(root)
    project.promoter.recover()
    assert project.registry.champion(MODEL) in (None, "1")
    if project.registry.champion(MODEL) is None:
        project.promote(candidates[0])
    assert project.registry.champion(MODEL) == champion_by_ledger(project.ledger, MODEL) == "1"
    versions = project.store.client.search_model_versions(f"name = '{MODEL}'")
    assert [str(version.version) for version in versions] == ["1"]
    head = project.ledger.verify()
    assert versions[0].tags[HEAD_TAG] == str(head)
    [opened] = project.ledger.entries("promotion-proposed")
    assert progress_of(project.ledger, opened.body["plan"]).state not in UNFINISHED


def compete(root: Path, directory: Path, outcome: Path) -> None:
    project = Project(root)
    try:
        outcome.write_text(project.promote(directory).version)
    except Exception as error:
        outcome.write_text(str(error))


def test_promoters_that_race_over_mlflow(tmp_path: Path, candidates: list[Path]) -> None:
    root = new_store(tmp_path / "project")
    outcomes = [tmp_path / f"outcome {i}" for i in range(3)]
    workers = [Child(target=compete, args=(root, directory, outcome)) for directory, outcome in zip(candidates, outcomes, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    results = sorted(outcome.read_text() for outcome in outcomes)
    project = Project(root)
    versions = [line for line in results if line.isdigit()]
    assert len(versions) == len(project.ledger.entries("promotion-committed")) >= 1
    assert all("champion-changed" in line for line in results if not line.isdigit()), results
    assert project.registry.champion(MODEL) == champion_by_ledger(project.ledger, MODEL)
    assert len(project.store.client.search_model_versions(f"name = '{MODEL}'")) == len(versions)
