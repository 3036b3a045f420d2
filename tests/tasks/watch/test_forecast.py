"""A plan where something is missing or would be refused: it says so, fetches nothing and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.ledger import Ledger
from tasks.watch.forecast import forecast
from tests.tasks.watch.hubs import NAME, a_hub, client_asks, first_commit
from tests.tasks.watch.small_project import make_small_project

RECIPE = "recipes/toy.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECOMPRESS_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return make_small_project(tmp_path / "project", model=NAME, revision=first_commit().head.id, sha256="a" * 64)


def files(project: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_what_is_not_here_is_named_and_not_fetched(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, hub = files(project), first_commit()
    newest = hub.commit(b"newer weights")
    with a_hub(hub) as address, client_asks(address, monkeypatch.setattr):
        told = forecast(project, RECIPE)
    assert told.run.then.startswith("not here yet: the data and the base model; a run brings that first")
    [base] = [sight for sight in told.sights if sight.source.name == "base"]
    assert (base.state, base.revision) == ("changed", newest.id)
    assert (told.to_do, told.seconds, told.run.exit_code) == ([], None, 0)
    assert not any("/resolve/" in line and line.startswith("GET") for line in hub.asked)
    assert files(project) == before


def test_a_hub_that_is_away_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_asks("http://127.0.0.1:1", monkeypatch.setattr):
        told = forecast(project, RECIPE)
    assert "not visible: the hub does not answer" in told.text()


def test_what_a_run_would_be_refused_for_is_said_with_its_exit_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "raw" / "toy" / "train.jsonl").write_text("{}\n")
    with client_asks("http://127.0.0.1:1", monkeypatch.setattr):
        told = forecast(project, RECIPE)
    assert (told.run.exit_code, "raw/toy was changed" in told.run.refused) == (3, True)
    assert "A run would be refused" in told.text()


def test_a_policy_that_was_edited_after_measuring_is_refused_as_a_run_refuses_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.tracking.track import Store

    ledger = Ledger(project / "ledger" / "ledger.db")
    ledger.append("policy-recorded", {"recipe": "toy", "policy_sha256": "0" * 64}, actor="ada")
    ledger.append("variant-measured", {"recipe": "toy"}, actor="ada")
    _ = Store(project).client
    with client_asks("http://127.0.0.1:1", monkeypatch.setattr):
        told = forecast(project, RECIPE)
    assert (told.run.exit_code, "was edited after models had been measured" in told.run.refused) == (4, True)
