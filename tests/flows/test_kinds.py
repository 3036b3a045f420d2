"""From somebody's file to a promoted model, for pairs of texts, several labels and numbers: explain, init, run, predict, export, verify."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recompress.models.checkpoint import save
from tests.flows.toy_project import ask, run
from tests.tiny import TOPICS, tiny_checkpoint, tiny_examples

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PAIRS, SEVERAL, NUMBERS = "pair-classification", "multi-label-classification", "text-regression"
ASKED = {PAIRS: "asha leo\tjuma kula", SEVERAL: "asha kula kazi juma", NUMBERS: "kula kula leo"}
METRICS = {PAIRS: "accuracy", SEVERAL: "micro_f1", NUMBERS: "pearson"}


def rows_of(kind: str, count: int) -> list[dict[str, Any]]:
    """What a small model learns; a number keeps texts of the test split out of the others."""
    rows: list[dict[str, Any]] = []
    for i, example in enumerate(tiny_examples(count, kind, seed=4)):
        texts = {"text": f"{example.words[0]} {i}"} if kind != PAIRS else {"premise": f"{example.words[0]} {i}", "hypothesis": example.words[1]}
        label: Any = (
            example.labels[0] if kind == PAIRS else [label for label in example.labels if label] if kind == SEVERAL else float(example.labels[0]) + 0.25
        )
        rows.append({**texts, "label": label})
    return rows


@pytest.mark.parametrize("kind", [PAIRS, SEVERAL, NUMBERS])
def test_a_file_becomes_a_promoted_model(kind: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, 900)))
    save(tiny_checkpoint("text-classification", layers=2), tmp_path / "base")
    asked = ["--benchmark", kind] if kind == NUMBERS else []  # numbers with so few values could be classes
    begun = run(tmp_path, "init", "project", "--data", "rows.jsonl", "--base", "base", *asked)
    assert any(kind in line for line in begun["inferred"])
    folder = tmp_path / "project"
    recipe, policy = folder / "recipes" / "rows.yaml", folder / "policies" / "rows.yaml"
    text = re.sub(r"learning_rate: \S+", "learning_rate: 3.0e-3", recipe.read_text())
    text = re.sub(r"epochs: \d+ .*", "epochs: 6", text, count=1).replace("distill: {epochs: 5}", "distill: {epochs: 3, learning_rate: 3.0e-3, precision: fp32}")
    recipe.write_text(re.sub(r"batch_size: 32", "batch_size: 16\n  precision: fp32", text, count=1))
    assert f"metric: {METRICS[kind]}" in policy.read_text()
    policy.write_text(
        re.sub(r"margin: [0-9.]+", "margin: 0.2", policy.read_text())
        .replace("times_smaller: 2.0", "times_smaller: 1.2")
        .replace("loss_budget: 0.1", "loss_budget: 0.5 #")
    )
    outcome = run(folder, "run")
    assert outcome["promotion"]["registered"] == "rows"
    assert outcome["promotion"]["model"] is not None, outcome["summary"]
    measured = {one["model"]: one for one in outcome["evaluations"]}
    assert measured["baseline"]["metrics"][METRICS[kind]] > 0.8
    assert METRICS[kind] in Path(outcome["page"]).read_text()
    assert run(folder, "run")["done"] == []
    [answer] = run(folder, "predict", "rows@champion", ASKED[kind])["predictions"]  # of a small student that may be wrong about a single text
    if kind == NUMBERS:
        assert 85 < answer["value"] < 135, "in the data's unit"
    else:
        assert {answer["label"]} < {*TOPICS} if kind == PAIRS else answer["scores"].keys() == {*TOPICS}
    assert run(folder, "audit", "verify")["holds"]
    run(folder, "export", "rows@champion", str(tmp_path / "out"), "--to", "onnx")
    assert ask(folder, "audit", "verify", str(tmp_path / "out"))["facts"]["version"] == "1"
