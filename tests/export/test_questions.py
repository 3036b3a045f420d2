"""Exported models that find answers: two outputs, segments, and a card whose lines work."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recompress.benchmarks import benchmark_of
from recompress.export import FORMATS, export
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, read_info, save
from recompress.runtimes import open_runtime
from tests.six import checkpoint_of, inputs_of
from tests.tiny import tiny_examples


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = checkpoint_of("bert-reader")
    checkpoint.info = replace(checkpoint.info, answering={"stride": 4, "threshold": None})
    folder = tmp_path_factory.mktemp("reader") / "model"
    save(checkpoint, folder)
    return folder


@pytest.mark.parametrize("to", ["onnx", "transformers", "openvino"])
def test_every_format_answers_as_before(reader: Path, to: str, tmp_path: Path) -> None:
    if to == "openvino":
        pytest.importorskip("openvino")
    done = export(reader, tmp_path / "out", to, examples=tiny_examples(6, "question-answering"))
    assert done.agreement.texts >= 6
    assert done.agreement.largest_change < FORMATS[to].close(read_info(reader))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    assert "stride 4, threshold None" in card


def test_the_lines_of_the_card_give_the_models_logits(reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 8 bits, as it is served: word for word what the card says, asked about the first example."""
    run_step("dynamic_int8", get_method("dynamic_int8").config(), reader, tmp_path / "int8", inputs_of("bert-reader", tmp_path / "work"))
    example = tiny_examples(1, "question-answering", seed=5)[0]
    export(tmp_path / "int8", tmp_path / "out", "onnx", examples=[example])
    [lines] = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    known: dict[str, np.ndarray] = {}
    exec(lines.replace('"question", "context"', f"{example.words[0]!r}, {example.words[1]!r}"), known)
    checkpoint = load(tmp_path / "int8")
    [feature] = benchmark_of(checkpoint.info).encode(checkpoint.tokenizer, [example], (), 64)
    [logits] = open_runtime(tmp_path / "int8").logits([feature], 1)
    np.testing.assert_allclose(np.stack([known["start_logits"][0], known["end_logits"][0]], axis=-1), logits, rtol=1e-5, atol=1e-5)
