"""A run that begins with a model that is fine-tuned already: nothing is trained, it is what everything is compared with, and other labels are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from recompress.models.checkpoint import load
from tests.flows.toy_project import make_project, run
from tests.hub import ModelHub, serving
from tests.models.test_finetuned import TURNED, write_given

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_the_given_model_is_what_everything_is_compared_with(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    recipe = folder / "recipe.yaml"
    # answers that nobody trained lie too close together for int8 to prove itself on them
    text = re.sub(r"(?ms)^variants:.*?(?=^policy:)", "variants:\n  onnx:\n    - onnx_fp32: {}\n", recipe.read_text())
    recipe.write_text(re.sub(r"(?m)^base: .*\n", "", re.sub(r"(?m)^baseline: .*$", "baseline: {model: base}", text)))
    info = folder / "base" / "recompress.json"
    ours = info.read_text()
    info.write_text(ours.replace('"food"', '"meals"'))
    refused = run(folder, "run", "recipe.yaml", code=2)
    assert "the data has 'food', which it does not know and it knows 'meals', which the data never shows" in refused["error"]
    info.write_text(ours)
    outcome = run(folder, "run", "recipe.yaml")
    assert {row["model"] for row in outcome["evaluations"]} == {"baseline", "onnx"}
    kept = {sha256_file(path) for path in (folder / "mlflow" / "store" / "artifacts").rglob("model.safetensors")}
    assert kept == {sha256_file(folder / "base" / "model.safetensors")}, "no weight of it was changed, and none was trained"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub on this machine that holds a model somebody fine-tuned: its labels in an order of its own, 24 tokens, cut on the left. Gives the folder of its files."""
    given = write_given(tmp_path / "given")
    monkeypatch.setattr(
        ModelHub, "files", {path.name: path.read_bytes() for path in given.iterdir()} | {"pytorch_model.bin": b"a pickle", "run.py": b"raise SystemExit"}
    )
    monkeypatch.setattr(ModelHub, "asked", [])
    with serving(ModelHub) as address:
        for name, value in (("HF_ENDPOINT", address), ("HF_HOME", str(tmp_path / "hf")), ("HF_HUB_DISABLE_XET", "1"), ("HF_HUB_OFFLINE", "0")):
            monkeypatch.setenv(name, value)
        yield given


def name_baseline(recipe: Path, choice: str, model: str, step: str = "trim_vocabulary: {}") -> None:
    """Another baseline, and one variant of one step that stays on torch."""
    text = re.sub(r"(?m)^base: .*\n", "", recipe.read_text())
    text = re.sub(r"(?m)^baseline: .*$", f"baseline: {choice}", text)
    text = re.sub(r"(?ms)^variants:.*?(?=^policy:)", f"variants:\n  smaller:\n    - {step}\n", text)
    recipe.write_text(re.sub(r"(?m)^register: .*$", f"register: {{model: {model}}}", text))


def test_a_model_of_a_hub_is_taken_at_its_commit_and_then_its_champion_from_the_registry(tmp_path: Path, hub: Path) -> None:
    """Labels and their order, the longest sequence and the side that is cut are the model's, on both ways and in what is served at the end."""
    folder = make_project(tmp_path / "project")
    recipe = folder / "recipe.yaml"
    name_baseline(recipe, f"{{model: some/topics, revision: {ModelHub.REVISION[::-1]}}}", "toy")
    assert "has no revision" in run(folder, "run", "recipe.yaml", code=2)["error"]
    name_baseline(recipe, f"{{model: some/topics, revision: {ModelHub.REVISION}}}", "toy")
    assert run(folder, "run", "recipe.yaml")["promotion"]["version"] == "1"
    assert not [path for path in ModelHub.asked if "resolve" in path and path.endswith((".bin", ".py"))], "nothing is asked for that could run code"
    name_baseline(recipe, '{model: "models:/toy@champion"}', "again", "magnitude: {sparsity: 0.1}")
    assert run(folder, "run", "recipe.yaml")["promotion"]["registered"] == "again"
    baselines = [path.parent for path in (folder / "mlflow" / "store" / "artifacts").rglob("recompress.json") if json.loads(path.read_text())["steps"] == []]
    kept = {sha256_file(path / "model.safetensors"): load(path) for path in baselines}
    assert len(kept) == 1, "of the hub; the registry's has a step behind it"
    for path in (folder / "mlflow" / "store" / "artifacts").rglob("recompress.json"):
        taken = load(path.parent)
        assert (taken.info.labels, taken.info.max_length, taken.tokenizer.truncation_side) == (TURNED, 24, "left"), path
    name_baseline(recipe, f"{{model: some/topics, revision: {ModelHub.REVISION}}}", "toy")
    config = json.loads((hub / "config.json").read_text())
    ModelHub.files["config.json"] = json.dumps(config | {"id2label": {"0": "work", "1": "meals", "2": "sport"}}).encode()
    recipe.write_text(recipe.read_text().replace(ModelHub.REVISION, ModelHub.LATER))
    refused = run(folder, "run", "recipe.yaml", code=2)
    assert "the data has 'food', which it does not know and it knows 'meals', which the data never shows" in refused["error"]
