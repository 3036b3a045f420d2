"""The whole way with people in it, on real DVC, Prefect and MLflow: run, wait, approve, promote, evidence, audit, and the same model made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.flows.toy_project import ask, make_project, run


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_from_a_run_that_waits_to_evidence_and_the_same_model_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project = make_project(tmp_path / "project")
    recipe, policy = project / "recipe.yaml", project / "policies" / "toy.yaml"
    text = recipe.read_text()
    start, end = text.index("  small:\n"), text.index("policy:")
    recipe.write_text((text[:start] + text[end:]).replace("epochs: 3", "epochs: 1"))
    policy.write_text(policy.read_text() + "approval: {mode: required, not_the_author: false}\n")

    outcome = run(project, "run", "recipe.yaml", code=6)
    plan = outcome["promotion"]["plan"]
    assert outcome["promotion"]["exit_code"] == 6
    assert f"recompress approve {plan}" in outcome["summary"]
    assert not (project / "evidence").exists()
    [waiting] = ask(project, "approve")
    assert waiting["digest"] == plan
    assert ask(project, "approve", plan)["approver"] == "tester"
    assert ask(project, "promote", plan)["version"] == "1"

    bundle = project / "evidence" / "toy-v1"
    assert ask(project, "audit", "verify", str(bundle))["approver"] == "tester"
    [stored] = (project / "mlflow" / "store" / "artifacts").rglob("evidence/toy-v1/bundle.json")
    assert stored.read_bytes() == (bundle / "bundle.json").read_bytes(), "it is kept with the version's run too"
    shutil.rmtree(bundle)
    assert run(project, "run", "recipe.yaml")["promotion"]["version"] == "1"
    assert ask(project, "audit", "verify")["troubles"] == [], "the next run made the bundle that was missing"

    trace = ask(project, "audit", "trace", "toy@champion")
    assert trace["data"]["md5"].endswith(".dir")
    assert trace["metrics"]["accuracy"] == trace["score"]
    assert [reign["version"] for reign in ask(project, "audit", "who-was", "toy", "--at", trace["promoted_at"])["champions"]] == ["1"]

    reproduction = run(project, "reproduce", "toy@1")
    assert reproduction["same_inputs"]
    assert reproduction["same_code"]
    assert reproduction["equal"], reproduction["metrics"]
    assert not list((project / ".recompress" / "reproduce").iterdir())
