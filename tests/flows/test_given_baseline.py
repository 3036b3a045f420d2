"""A run that begins with a model that is fine-tuned already: nothing is trained, it is what everything is compared with, and other labels are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from tests.flows.toy_project import make_project, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_the_given_model_is_what_everything_is_compared_with(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    recipe = folder / "recipe.yaml"
    text = re.sub(r"(?ms)^  (small|sparse):.*?(?=^  sparse:|^policy:)", "", recipe.read_text())
    recipe.write_text(re.sub(r"(?m)^base: .*\n", "", re.sub(r"(?m)^baseline: .*$", "baseline: {model: base}", text)))
    info = folder / "base" / "recompress.json"
    ours = info.read_text()
    info.write_text(ours.replace('"food"', '"meals"'))
    refused = run(folder, "run", "recipe.yaml", code=2)
    assert "the data has 'food', which it does not know and it knows 'meals', which the data never shows" in refused["error"]
    info.write_text(ours)
    outcome = run(folder, "run", "recipe.yaml")
    assert {row["model"] for row in outcome["evaluations"]} == {"baseline", "int8"}
    kept = {sha256_file(path) for path in (folder / "mlflow" / "store" / "artifacts").rglob("model.safetensors")}
    assert kept == {sha256_file(folder / "base" / "model.safetensors")}, "no weight of it was changed, and none was trained"
