"""Whoever is asked beside a text, and however long, the text's answer is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load
from recompress.runtimes import runtime_of
from tests.families import inputs_of, saved


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_an_answer_does_not_depend_on_what_else_is_asked(tmp_path: Path, runtime: str) -> None:
    inputs = inputs_of(tmp_path / "work")
    saved("bert", tmp_path / "model")
    folder = tmp_path / "model"
    if runtime == "onnx":
        folder = tmp_path / "int8"
        run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "model", folder, inputs)
    checkpoint = load(folder)
    features = inputs.benchmark.encode(checkpoint.tokenizer, inputs.train, checkpoint.info.labels, checkpoint.info.max_length)
    asked = runtime_of(checkpoint)
    together, alone = asked.logits(features), [asked.logits([feature])[0] for feature in features]
    assert asked.name == runtime
    assert max(float(np.abs(one - other).max()) for one, other in zip(together, alone, strict=True)) <= (0 if runtime == "onnx" else 1e-5)
