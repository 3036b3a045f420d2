"""The whole path on data that it makes: run, run again, change a dial, alter a file, kill in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.whole_way import found_again
from recompress.integrity.digest import sha256_file
from recompress.methods import known_chains
from tasks.running.recompression import read_plan
from tasks.steps.rehearsal import all_found
from tests.audit.forging import Forger
from tests.flows.test_quick_answers import PATIENCE_OF_PLANS, command, heavy_in, times_the_measure
from tests.flows.toy_project import ask, environment, make_project, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MOMENTS = ("baseline ·", "small/3 distill", "timing", "promotion ·")
"""What a run says when it begins something. It is killed there."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A project in which the recipe was run once, and what came out."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    planned = ask(folder, "plan", "recipe.yaml")
    outcome = run(folder, "run", "recipe.yaml")
    assert outcome["promotion"]["model"], outcome["summary"]
    return folder, outcome | {"planned": planned}


def test_a_first_run_promotes_and_a_second_repeats_nothing(first: tuple[Path, dict[str, Any]]) -> None:
    project, before = first
    outcome = run(project, "run", "recipe.yaml")
    assert outcome["done"] == []
    assert flow_runs(project) == 1, "where nothing is to be done no server was started"
    assert outcome["promotion"]["version"] == "1"
    assert outcome["evaluations"] == before["evaluations"]
    assert {e["model"] for e in outcome["evaluations"]} == {"baseline", "int8", "small", "sparse"}
    page = Path(outcome["page"]).read_text()
    assert "http" not in page.replace("http://www.w3.org/", ""), "nothing outside the page but the names of XML's own namespaces"
    assert "<script" not in page
    small = next(e for e in outcome["evaluations"] if e["model"] == "small")
    assert small["metrics"]["latency_ratio"] > 0
    assert small["slices"].keys() == {"east", "west"}
    check_looks(project, before, outcome)


def flow_runs(project: Path) -> int:
    """How many runs Prefect has seen."""
    with closing(sqlite3.connect(project / ".prefect" / "prefect.db")) as database:
        return int(database.execute("SELECT count(*) FROM flow_run").fetchone()[0])


def test_where_something_is_to_be_done_nothing_is_done_before_prefect_sees_it(first: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    project, before = first
    monkeypatch.setenv("RECOMPRESS_ACTOR", "tester")
    recipe, log = project / "recipe.yaml", ask(project, "audit", "log")
    said: list[str] = []
    again = found_again(str(recipe), str(project), said.append)
    assert again is not None
    assert any(line.startswith("data: toy") for line in said)
    assert (again.exit_code, again.as_json["promotion"]) == (0, before["promotion"])
    assert all_found(project, read_plan(str(recipe), project)), "a watch of it begins with what is there"
    text = recipe.read_text()
    for old, new in (("sparsity: 0.5", "sparsity: 0.6"), ("distill: {epochs: 2", "distill: {epochs: 3"), ("epochs: 3, learning", "epochs: 4, learning")):
        try:
            recipe.write_text(text.replace(old, new))
            assert found_again(str(recipe), str(project), said.append) is None, old
            assert not all_found(project, read_plan(str(recipe), project)), "a watch of it begins with a run"
        finally:
            recipe.write_text(text)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert found_again(str(recipe), str(project), said.append) is None, "a server that is named sees every run"
    assert ask(project, "audit", "log") == log


def files_of(project: Path) -> dict[str, str]:
    """Every file of a project, its stores included, by its digest; but for what was read of recipes, which is kept for the next who looks."""
    files = (path for path in sorted(project.rglob("*")) if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(project)): sha256_file(path) for path in files if path != project / known_chains.FILE}


def test_a_plan_says_what_a_run_then_does_and_why_and_changes_nothing(first: tuple[Path, dict[str, Any]]) -> None:
    project, before = first
    new = {step["step"] for step in before["planned"]["steps"] if step["state"] == "new"}
    assert new == {step for step in before["done"] if "/" in step and step.split("/")[1][0].isdigit()} | {"check toy", "check words", "baseline", "teacher"}
    assert before["planned"]["seconds_last_time"] is None
    as_it_was = files_of(project)
    plan = ask(project, "plan", "recipe.yaml")
    assert {step["state"] for step in plan["steps"]} == {"found"}
    assert {step["step"] for step in plan["steps"]} == set(before["done"]) - {"report", "promotion"}
    assert f"{before['promotion']['model']} is champion of toy already, and stays (version 1)" == plan["then"]
    assert all(step["seconds"] >= 0 for step in plan["steps"])
    assert {source["state"] for source in plan["sources"] if source["name"] in ("base", "data toy", "data words")} == {"as pinned"}
    recipe = project / "recipe.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text(
            text.replace("distill: {epochs: 2", "distill: {epochs: 3").replace("variants:\n", "variants:\n  other:\n    - magnitude: {sparsity: 0.6}\n")
        )
        plan = ask(project, "plan", "recipe.yaml")
    finally:
        recipe.write_text(text)
    states = {step["step"]: (step["state"], step["because"]) for step in plan["steps"] if step["state"] != "found"}
    assert states == {
        "other/1 magnitude": ("new", []),
        "small/3 distill": ("changed", ["epochs: 2 → 3"]),
        "small/4 dynamic_int8": ("changed", ["what small/3 distill leaves"]),
    }
    assert plan["seconds_last_time"] > 0
    assert files_of(project) == as_it_was


def test_a_plan_in_which_all_is_found_takes_a_few_imports_and_none_that_is_heavy(first: tuple[Path, dict[str, Any]], root: Path) -> None:
    project, _ = first
    question = ("plan", str(project / "recipe.yaml"))
    assert heavy_in(project, root, *question) == [], "the run has read the recipe"
    assert times_the_measure(command(project, *question), root) < PATIENCE_OF_PLANS


def check_looks(project: Path, before: dict[str, Any], outcome: dict[str, Any]) -> None:
    """The order was in the ledger before the test split was looked at; each finalist had one look, and what is found again has no more."""
    kinds = [row["kind"] for row in ask(project, "audit", "log")]
    assert kinds.index("finalists-named") < kinds.index("variant-measured") < kinds.index("test-look")
    assert (kinds.count("finalists-named"), kinds.count("test-look"), kinds.count("test-look-result")) == (1, 3, 3)
    assert (len(outcome["finalists"]), outcome["finalists"]) == (3, before["finalists"])
    assert outcome["looks"] == before["looks"]
    assert outcome["looks"]["looks"] == 3
    looks = {name: verdict["look"] for name, verdict in outcome["verdicts"].items()}
    assert [looks[name]["number"] for name in outcome["finalists"]] == [1, 2, 3]
    assert [list(looks[name]["steps"]) for name in outcome["finalists"]] == [["first"], ["others"], ["others"]]
    assert all(loss["confidence"] == 1 - looks[name]["level"] for name, verdict in outcome["verdicts"].items() for loss in verdict["losses"])
    assert {trial["name"]: trial["score"] for trial in outcome["dev"]["trials"]} != {e["model"]: e["metrics"]["accuracy"] for e in outcome["evaluations"]}
    page = Path(outcome["page"]).read_text()
    assert "Who was judged, and who was not" in page
    assert "This test split has had 3 looks" in page
    assert "This test split has had 3 looks" in ask(project, "report", "recipe.yaml")["summary"]
    trace = ask(project, "audit", "trace", "toy@champion")
    assert (trace["look"], trace["looks"]) == (looks[outcome["promotion"]["model"]], 3)
    assert "that loses nothing passes from a margin of" in trace["split_left"]


def test_the_champion_answers_plain_text(first: tuple[Path, dict[str, Any]]) -> None:
    answer = run(first[0], "predict", "toy@champion", "leo kula jana")
    assert answer["predictions"][0]["label"] in {"food", "sport", "work"}


@pytest.mark.long
def test_a_changed_dial_an_altered_file_and_new_variants_run_and_nothing_else(first: tuple[Path, dict[str, Any]]) -> None:
    """And one of the new variants is taught by another variant."""
    project, earlier = first
    victim = sorted((project / "mlflow" / "store" / "artifacts").rglob("steps/1-dynamic_int8-*/model/model.onnx"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    recipe = project / "recipe.yaml"
    before = recipe.read_text()
    pupil = "    - prune_structure: {layers: 1, neurons: 0.25}\n    - distill: {epochs: 1, learning_rate: 3.0e-3, precision: fp32, TEACHER}\n"
    pupils = f"  of_sparse:\n{pupil.replace('TEACHER', 'teacher: sparse')}  of_baseline:\n{pupil.replace(', TEACHER', '')}policy:"
    recipe.write_text(before.replace("sparsity: 0.5", "sparsity: 0.6").replace("policy:", pupils))
    outcome = run(project, "run", "recipe.yaml")
    recipe.write_text(before)
    assert {name.split("/")[0] for name in outcome["done"]} - {"finalists", "verdicts", "report", "promotion"} == {"sparse", "of_sparse", "of_baseline", "int8"}
    assert "int8/1 dynamic_int8" in outcome["done"]
    assert "sparse/teacher" in outcome["done"]
    assert "teacher" in outcome["reused"]
    digests = {e["model"]: e["model_sha256"] for e in outcome["evaluations"]}
    assert digests["of_sparse"] != digests["of_baseline"]
    untouched = {e["model"]: e["model_sha256"] for e in earlier["evaluations"]}
    assert {name for name in untouched if untouched[name] == digests[name]} == {"baseline", "int8", "small"}


@pytest.mark.long
def test_a_forged_step_stops_the_next_run_by_its_name(first: tuple[Path, dict[str, Any]]) -> None:
    """What the forged result says does not matter: the ledger does not know it. ``tests/audit/test_forged.py`` forges every kind of step."""
    project, _ = first
    forger = Forger(f"sqlite:///{project / 'mlflow' / 'store' / 'mlflow.db'}")
    run_id, tag = forger.lay("steps/baseline", lambda result: result.update(kind="mine"))  # whatever was run in between, every run needs this one
    refusal = run(project, "run", "recipe.yaml", code=5)
    assert re.search(r"step baseline was forged: .* names a result with sha256 .* ledger record \d+ knows", str(refusal))
    forger.client.delete_tag(run_id, tag)


@pytest.mark.long
def test_killed_again_and_again_it_goes_on_and_ends_the_same(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    project = make_project(tmp_path / "killed")
    for moment in MOMENTS:
        kill_at(project, moment)
    outcome = run(project, "run", "recipe.yaml")
    undisturbed = first[1]
    assert outcome["promotion"]["model"] == undisturbed["promotion"]["model"]
    assert [e["model_sha256"] for e in outcome["evaluations"]] == [e["model_sha256"] for e in undisturbed["evaluations"]]
    assert "baseline" in outcome["reused"], "a step that was finished before a kill is not repeated"


def kill_at(project: Path, moment: str) -> None:
    """Run, and SIGKILL the process when it says that ``moment`` begins."""
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "recipe.yaml"], cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    output = b""
    while moment.encode() not in output:
        more = child.stderr.read1(4096)  # type: ignore[attr-defined]
        assert more, output.decode()[-2000:]
        output += more
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stderr.close()


@pytest.mark.long
def test_groups_and_trainings_go_all_the_way_from_the_data_to_the_verdict(first: tuple[Path, dict[str, Any]]) -> None:
    """Every third text of a slice has the same author as the two after it, and the policy asks for two trainings."""
    project, _ = first
    for path in sorted((project / "raw" / "toy").rglob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {"author": f"{path.parent.name} {path.stem} {i // 3}"}) + "\n" for i, row in enumerate(rows)))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("format: jsonl,", "format: jsonl, group: author,"))
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "raw/toy"], cwd=project, check=True, env=environment(project), capture_output=True)
    run(project, "data", "accept", "toy")
    policy = (project / "policies" / "toy.yaml").read_text()
    (project / "policies" / "grouped.yaml").write_text(
        policy.replace("margin: 0.2", "margin: 0.4").replace("loss_budget: 0.4", "loss_budget: 0.8\ntrainings: 2")
    )
    recipe = yaml.safe_load((project / "recipe.yaml").read_text())
    recipe |= {"name": "grouped", "policy": "policies/grouped.yaml", "register": {"model": "grouped"}}
    recipe["variants"] = {name: recipe["variants"][name] for name in ("int8", "sparse")}
    (project / "grouped.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    outcome = run(project, "run", "grouped.yaml")
    again = {"baseline (training 2)", "int8/1 dynamic_int8 (training 2)", "sparse/1 magnitude (training 2)", "sparse/2 finetune (training 2)"}
    assert {name for name in outcome["done"] if "training 2" in name and "quality" not in name} == again
    digests = {e["model"]: e["model_sha256"] for e in outcome["evaluations"]}
    assert digests.keys() == {"baseline", "int8", "sparse"}, "only the first training is timed, shown and may be promoted"
    for name, verdict in outcome["verdicts"].items():
        own, recipe = verdict["losses"]
        assert (own["groups"], own["worth"], len(recipe["trainings"])) == (160, 160.0, 2)
        [second] = verdict["trainings"]
        assert verdict["candidate_sha256"] == digests[name] != second["candidate_sha256"]
        assert second["baseline_sha256"] != digests["baseline"]
        assert recipe["candidate"] == pytest.approx((own["candidate"] + second["candidate"]) / 2)
    assert outcome["promotion"]["model"], outcome["summary"]
    assert "480 test texts from 160 groups" in Path(outcome["page"]).read_text()
    assert run(project, "run", "grouped.yaml")["done"] == []
