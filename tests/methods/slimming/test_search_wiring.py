"""What search ranks by is (where the metric is equal) the loss on dev after the short training that its dials name, of the very shapes that it lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from tests.methods.by_hand import inputs_for, uneven
from tests.six import HEADS, HIDDEN, NEURONS
from tests.tiny import TAGS

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINING: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 8, "precision": "fp32"}


def test_a_shape_is_ranked_by_what_a_short_training_on_some_examples_makes_of_it(tmp_path: Path) -> None:
    save(uneven("bert"), tmp_path / "source")
    inputs = replace(inputs_for("bert", tmp_path / "work"), seed=3)
    dials = {"candidates": 2, "trial_examples": 12, "calibration_examples": 10, "epochs": 2, **TRAINING}
    run_step("search", get_method("search").config(**dials), tmp_path / "source", tmp_path / "target", inputs)
    [ranking] = (tmp_path / "work").glob("search-*/ranking.json")
    trials = json.loads(ranking.read_text())
    some = [inputs.train[i] for i in sorted(np.random.default_rng(inputs.seed).permutation(len(inputs.train))[:12])]
    for i, trial in enumerate(trials):
        shape, place = trial["shape"], tmp_path / str(i)
        shares = {"heads": 1 - shape["groups"] / HEADS, "neurons": 1 - shape["neurons"] / NEURONS, "hidden": 1 - shape["hidden"] / HIDDEN}
        cut = get_method("prune_structure").config(layers=shape["layers"], calibration_examples=10, **shares)
        run_step("prune_structure", cut, tmp_path / "source", place / "cut", replace(inputs, workdir=place / "w1"))
        tuned = get_method("finetune").config(epochs=1, **TRAINING)
        run_step("finetune", tuned, place / "cut", place / "tuned", replace(inputs, train=some, workdir=place / "w2"))
        checkpoint = load(place / "tuned")
        network: Any = checkpoint.torch_network
        losses = []
        for feature in inputs.benchmark.encode(checkpoint.tokenizer, inputs.dev, TAGS, 16):
            with torch.no_grad():
                logits = network(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
            labels = torch.tensor(feature["labels"])
            losses.append(float(nn.functional.cross_entropy(logits, labels)))
        assert trial["score"][1] == pytest.approx(-sum(losses) / len(losses), rel=1e-4)
    assert trials == sorted(trials, key=lambda trial: trial["score"], reverse=True)
    in_full = get_method("finetune").config(epochs=2, **TRAINING)
    run_step("finetune", in_full, tmp_path / "0" / "cut", tmp_path / "winner", replace(inputs, workdir=tmp_path / "w3"))
    expected = load(tmp_path / "winner").torch_network.state_dict()
    for name, tensor in load(tmp_path / "target").torch_network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=lambda text, name=name: f"{name}: {text}")
