"""The whole path on data that it makes: run, run again, change a dial, alter a file, kill in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.made import environment, make_project, run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the recipe was run once."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    told = run(folder, "run", "recipe.yaml")
    assert told["promotion"]["model"], told["summary"]
    return folder


def test_a_first_run_promotes_and_a_second_repeats_nothing(project: Path) -> None:
    told = run(project, "run", "recipe.yaml")
    assert told["done"] == []
    assert told["promotion"]["version"] == "1"
    assert {e["model"] for e in told["evaluations"]} == {"baseline", "int8", "small", "sparse"}
    page = Path(told["page"]).read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    small = next(e for e in told["evaluations"] if e["model"] == "small")
    assert small["metrics"]["latency_ratio"] > 0
    assert small["slices"].keys() == {"east", "west"}


def test_the_champion_answers_plain_text(project: Path) -> None:
    told = run(project, "predict", "toy@champion", "leo kula jana")
    assert told["predictions"][0]["label"] in {"food", "sport", "work"}


def test_a_changed_dial_reruns_that_variant_alone(project: Path) -> None:
    recipe = project / "recipe.yaml"
    before = recipe.read_text()
    recipe.write_text(before.replace("sparsity: 0.5", "sparsity: 0.6"))
    told = run(project, "run", "recipe.yaml")
    recipe.write_text(before)
    assert {name.split("/")[0] for name in told["done"]} - {"verdicts", "report", "promotion"} == {"sparse"}


def test_an_altered_artifact_is_noticed_and_its_step_runs_again(project: Path) -> None:
    told = run(project, "run", "recipe.yaml")
    weights = [path for path in (project / "mlflow" / "store" / "artifacts").rglob("model.onnx") if "int8" in str(path.parent.parent.name)]
    assert weights, "the int8 model is stored"
    victim = sorted(weights)[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    again = run(project, "run", "recipe.yaml")
    assert any("dynamic_int8" in name for name in again["done"])
    assert again["evaluations"][0] == told["evaluations"][0]


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(project: Path, tmp_path: Path) -> None:
    recipe = project / "recipe.yaml"
    before = recipe.read_text()
    recipe.write_text(
        before.replace("seed: 0", "seed: 7").replace("register: {model: toy}", "register: {model: other}").replace("name: toy\nbench", "name: other\nbench")
    )
    done: list[str] = []
    for wait in (9.0, 14.0, 19.0):
        child = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", "recipe.yaml"],
            cwd=project,
            env=environment(project),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        _, said = child.communicate()
        done.append(said)
    told = run(project, "run", "recipe.yaml")
    fresh = make_project(tmp_path / "fresh")
    (fresh / "recipe.yaml").write_text(recipe.read_text())
    undisturbed = run(fresh, "run", "recipe.yaml")
    recipe.write_text(before)
    assert told["promotion"]["model"] == undisturbed["promotion"]["model"]
    for ours, theirs in zip(told["evaluations"], undisturbed["evaluations"], strict=True):
        assert ours["model_sha256"] == theirs["model_sha256"], ours["model"]
