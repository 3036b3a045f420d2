"""Two projects over one MLflow: each has an experiment of its own, and neither finds, ends or renames what is the other's."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.ledger import Ledger
from recompress.promotion import HEAD_TAG
from tasks.ledger.anchors import sound_ledger
from tasks.tracking.memory import Memory
from tasks.tracking.registry import MlflowRegistry
from tasks.tracking.track import Store, experiment_of

KEY = "ab" * 32


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    home = tmp_path_factory.mktemp("shared")
    for name in ("tickets-1f9c3a", "tickets-77ab01"):
        (home / name).mkdir()
        (home / name / "params.yaml").write_text(f"project: {name}\ndatasets: {{}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'shared.db'}")
        return [Store(root) for root in sorted(home.iterdir())]


def test_each_has_its_experiment_and_the_others_runs_are_not_its_own(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = stores
    assert first.experiment != second.experiment
    assert first.client.get_experiment(first.experiment).name == "recompress/tickets-1f9c3a"
    run = first.open_run("baseline", {})
    monkeypatch.setattr("psutil.pid_exists", lambda pid: False)
    second.close_abandoned_runs()
    assert first.client.get_run(run).info.status == "RUNNING"
    first.close_abandoned_runs()
    assert first.client.get_run(run).info.status == "KILLED"


def test_the_same_step_of_the_other_is_neither_found_nor_doubted_nor_renamed(stores: list[Store], tmp_path: Path) -> None:
    first, second = stores
    kept = Memory(first, Ledger(tmp_path / "first.db", create=True))
    run = first.open_run("baseline", {})
    kept.keep(KEY, "baseline", run, "steps/baseline", {"kind": "baseline"}, {})
    doubts: list[str] = []
    other = Memory(second, Ledger(tmp_path / "second.db", create=True))
    assert other.recall(KEY, "baseline", doubts.append) is None
    second.retire_step(KEY)
    other.keep(KEY, "baseline", second.open_run("baseline", {}), "steps/baseline", {"kind": "other"}, {})
    for memory, kind in ((kept, "baseline"), (other, "other")):
        recalled = memory.recall(KEY, "baseline", doubts.append)
        assert recalled is not None
        assert recalled["kind"] == kind
    assert doubts == []


def test_a_model_of_the_others_is_left_alone_and_said_to_be_one(stores: list[Store], tmp_path: Path) -> None:
    first, second = stores
    first.client.create_registered_model("tickets")
    first.client.create_model_version("tickets", str(tmp_path), tags={HEAD_TAG: f"7:{'c' * 64}"})
    assert sound_ledger(second.root, MlflowRegistry(second), "invoices") is None
    with pytest.raises(
        IntegrityError, match=r"the tag of version 1 of tickets names its record 7 .*if another project registered it, choose another name under register"
    ):
        sound_ledger(second.root, MlflowRegistry(second), "tickets")


def test_a_project_without_a_name_keeps_the_experiment_that_it_had(tmp_path: Path) -> None:
    assert experiment_of(tmp_path) == "recompress"
    (tmp_path / "params.yaml").write_text("datasets: {}\n")
    assert experiment_of(tmp_path) == "recompress"
    (tmp_path / "params.yaml").write_text("project: ../x\n")
    with pytest.raises(InputError, match=r"project is a name of at most 80 .*params\.yaml:1"):
        experiment_of(tmp_path)
