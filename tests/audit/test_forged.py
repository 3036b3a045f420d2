"""Forged with MLflow's own client: a remembered step, a measure, a verdict, a data check, evidence, a version. Each is exit code 5, by its name, wherever it matters."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from recompress.errors import IntegrityError
from recompress.integrity.digest import sha256_directory
from recompress.promotion import MODEL_TAG, PLAN_TAG, approve, named
from studies.forgeries import changes
from tasks.people.bundle import recall_dossier
from tasks.running.project import Project
from tasks.tracking.memory import ForgedStep
from tests.audit.forging import Forger
from tests.audit.small_project import do_steps, open_run, small_project
from tests.promotion.stage import MODEL

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


def spoil(result: dict[str, Any]) -> None:
    """Say what suits: a variant that was refused with 40.4 passes with 65.4, and the data holds no fault."""
    result |= {"metrics": {"accuracy": 0.654}, "verdicts": [{"candidate": "int8", "passed": True}], "record": {"passed": True, "checks": []}}


PLACES = {
    "baseline": "steps/baseline",
    "int8/quality": "steps/quality",
    "int8/speed": "steps/speed",
    "verdicts": "steps/verdicts",
    "check tiny": "steps/check-tiny",
    "int8/1 dynamic_int8": "steps/1-dynamic_int8",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each test leaves it as it was."""
    return small_project(tmp_path_factory.mktemp("forged") / "project")


@pytest.fixture
def forger(project: Path) -> Iterator[Forger]:
    assert verify(project) == (0, [])
    yield Forger(Project(project).store.uri)
    assert verify(project) == (0, []), "what the test did was undone"


def verify(root: Path) -> tuple[int, list[str]]:
    """``recompress audit verify``: the exit code, and what it names as broken or worth a notice."""
    result = CliRunner().invoke(main, ["--root", str(root), "audit", "verify", "--json"], catch_exceptions=False)
    return result.exit_code, [f"{trouble['where']}: {trouble['detail']}" for trouble in json.loads(result.stdout)["troubles"]]


@pytest.mark.long
def test_random_changes_are_found_or_listed_as_harmless(project: Path, forger: Forger) -> None:
    """A sample of what ``studies/forgeries.py`` does three hundred times. The first test here: what forgers leave lying about is harmless, and no kind of its own."""
    rows = list(changes(project, 16, seed=11))
    assert [row["how"] for row in rows if not row["found"] and not row["harmless"]] == []
    assert {row["kind"] for row in rows} == {"rows", "keys", "versions", "steps"}
    assert sum(bool(row["found"]) for row in rows) >= 8, "or the reasons would hide everything"


@pytest.mark.parametrize("step", PLACES)
def test_a_forged_step_stops_the_run_and_is_named_by_the_audit(project: Path, forger: Forger, step: str) -> None:
    mine = project / "predictions"
    mine.write_text("mine")
    run_id, tag = forger.lay(PLACES[step], spoil, {"predictions": mine})
    with pytest.raises(ForgedStep, match=f"^step {step} was forged: .* ledger record ") as error:
        do_steps(project)
    assert error.value.exit_code == 5
    assert "\n" not in str(error.value)
    code, lines = verify(project)
    assert code == 5
    assert [line.partition(":")[0] for line in lines] == [f"step {step}"]

    assert f"MlflowClient().delete_tag('{run_id}', '{tag}')" in str(error.value), "the way out"
    forger.client.delete_tag(run_id, tag)
    run = do_steps(project)
    assert run.done == [], "without the forged tag the step is found where the ledger says it lies"
    run.store.client.set_tag(run_id, tag, _tag(project, tag.removeprefix("step.")))


def _tag(root: Path, key: str) -> str:
    """What the tag said that was taken away: the ledger knows it."""
    entry = Project(root).ledger.last("step-kept", key=key)
    assert entry is not None
    return f"{entry.body['place']}#{entry.body['sha256']}"


def test_a_result_on_a_run_of_ones_own_is_forged_too(project: Path, forger: Forger) -> None:
    run_id = forger.client.create_run(forger.runs[0].info.experiment_id).info.run_id
    forger.lay(PLACES["int8/quality"], spoil, run_id=run_id)
    with pytest.raises(ForgedStep, match=f"step int8/quality was forged: .* run {run_id} "):
        do_steps(project)
    assert verify(project)[0] == 5
    forger.client.delete_run(run_id)


def test_a_step_that_the_ledger_does_not_know_is_not_believed(project: Path, forger: Forger) -> None:
    """Nobody can say whether an earlier version left it or somebody laid it there before its time: it is done again, and the run says why."""
    key = "f" * 64
    run_id, tag = forger.lay(PLACES["verdicts"], spoil)
    forger.client.set_tag(run_id, f"step.{key}", forger.client.get_run(run_id).data.tags[tag])
    forger.client.set_tag(run_id, tag, _tag(project, tag.removeprefix("step.")))
    assert verify(project) == (
        0,
        [f"MLflow: it remembers 1 steps that the ledger does not know ({'f' * 12}…); nobody believes them, and a run that needs them does them again"],
    )
    again, heard = open_run(project), list[str]()
    assert again.memory.recall(key, "verdicts", heard.append) is None
    assert "verdicts: MLflow holds a result of it that the ledger does not know" in heard[0]
    again.store.retire_step(key)
    assert [name for name in again.store.client.get_run(run_id).data.tags if name.endswith(key)] == [f"unknown.step.{key}"]


def test_other_bytes_where_a_result_lies_are_never_believed(project: Path, forger: Forger) -> None:
    """And never a dead end: the step is done again, and the ledger knows both results."""
    forger.overwrite(PLACES["int8/speed"], spoil)
    code, [line] = verify(project)
    assert (code, line.startswith("step int8/speed: its result steps/speed-")) == (0, True)
    run = do_steps(project)
    assert run.done == ["int8/speed"]
    run.finish("FINISHED")


def test_forged_evidence_is_shown_to_nobody_who_decides(project: Path, forger: Forger) -> None:
    [waiting] = json.loads(CliRunner().invoke(main, ["--root", str(project), "approve", "--json"]).stdout)
    run_id, tag = forger.lay(f"evidence/{waiting['digest'][:12]}", lambda result: result["dossier"].update(policy_text="metric: nothing\n"))
    before = Project(project).ledger.head()
    for command in (["approve", waiting["digest"]], ["promote", waiting["digest"]]):
        result = CliRunner().invoke(main, ["--root", str(project), *command, "--json"])
        assert (result.exit_code, "step evidence was forged" in result.output) == (5, True), result.output
    assert Project(project).ledger.head() == before
    forger.client.set_tag(run_id, tag, _tag(project, tag.removeprefix("step.")))
    assert recall_dossier(Project(project).memory, named(Project(project).ledger, waiting["digest"]).plan).policy_text == "metric: f1\n"


def judged_against(project: Path) -> Any:
    """The champion as a run finds it that ends with that."""
    from tasks.steps.judge import present_champion

    run = open_run(project)
    with run.holding:
        return present_champion.fn(run, [])


@pytest.mark.parametrize("tag", [MODEL_TAG, PLAN_TAG, "recompress.evidence", "recompress.judged_against", "recompress.spent_loss"])
def test_what_the_champion_was_judged_on_is_asked_of_the_ledger(project: Path, forger: Forger, tag: str) -> None:
    before = judged_against(project)
    registry = Project(project).registry
    was = (registry.tags(MODEL, "2") or {}).get(tag)
    forger.client.set_model_version_tag(MODEL, "2", tag, "0" * 64)
    assert judged_against(project) == before
    assert before.sha256 == sha256_directory(project / "candidates" / "1")
    if was is None:
        forger.client.delete_model_version_tag(MODEL, "2", tag)
    else:
        assert verify(project)[0] == 5
        forger.client.set_model_version_tag(MODEL, "2", tag, was)


@pytest.mark.parametrize("column", ["storage_location", "source"])
def test_a_row_that_leads_elsewhere_is_named(project: Path, forger: Forger, column: str) -> None:
    """The other version is whole: with its row in the place of this one, it would be served as this one."""
    with sqlite3.connect(project / "mlflow" / "store" / "mlflow.db") as database:
        rows = dict(database.execute(f"SELECT version, {column} FROM model_versions").fetchall())
        database.execute(f"UPDATE model_versions SET {column} = ? WHERE version = 2", (rows[1],))
    code, lines = verify(project)
    assert (code, any(line.startswith("ner version 2: ") for line in lines)) == (5, True)
    with pytest.raises(IntegrityError, match="version 2 of ner was registered from" if column == "storage_location" else "version 2 of ner"):
        Project(project).promoter.settle(MODEL)
    with sqlite3.connect(project / "mlflow" / "store" / "mlflow.db") as database:
        database.execute(f"UPDATE model_versions SET {column} = ? WHERE version = 2", (rows[2],))
    database.close()


def test_a_version_laid_under_a_plan_that_waits_is_never_promoted(project: Path, tmp_path: Path) -> None:
    """The last test here, because a plan ends with it."""
    here = Project(project)
    forger = Forger(here.store.uri)
    [opened] = [entry for entry in here.ledger.entries("promotion-proposed") if here.registry.find_version(MODEL, entry.body["plan"]) is None]
    plan = opened.body["plan"]
    assert forger.lay_version(MODEL, here.registry.fetch(MODEL, "2"), project / "candidates" / "2", plan, tmp_path) == "3"
    code, [line] = verify(project)
    assert (code, line.startswith(f"ner version 3: it carries the tag of plan {plan[:12]}…, but this ledger has uploaded none for it")) == (5, True)
    approve(here.ledger, plan, actor="bob")
    result = CliRunner().invoke(main, ["--root", str(project), "promote", plan, "--json"])
    assert result.exit_code == 5, result.output
    assert "version 3 of ner carries the tag of plan" in result.output
    assert here.registry.champion(MODEL) == "2"
