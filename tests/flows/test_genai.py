"""The whole way of a model of language that ends on ONNX Runtime GenAI: what was judged there is what is served and handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from tests.flows.test_gguf import make_project
from tests.flows.toy_project import run

pytest.importorskip("gguf")
pytest.importorskip("onnxruntime_genai")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
RECIPE = """
name: chat
benchmark: language-modelling
dataset: {{name: lines}}
baseline: {{model: tiny.gguf, sha256: {sha256}, max_length: 16}}
variants:
  int4:
    - onnx_genai: {{}}
  gptq_int4:
    - gptq: {{bits: 4, group_size: 32, calibration_examples: 8}}
    - onnx_genai_nbits: {{}}
policy: policy.yaml
register: {{model: chat}}
"""


def test_from_a_file_to_a_folder(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    (folder / "recipe.yaml").write_text(RECIPE.format(sha256=sha256_file(folder / "tiny.gguf")))
    outcome = run(folder, "run", "recipe.yaml")
    measured = {row["model"]: row["metrics"] for row in outcome["evaluations"]}
    assert measured.keys() == {"baseline", "int4", "gptq_int4"}
    assert outcome["promotion"]["registered"] == "chat"
    for name in ("int4", "gptq_int4"):
        assert measured[name]["decode_per_s"] > 0
        assert measured[name]["bits_per_byte"] == pytest.approx(measured["baseline"]["bits_per_byte"], rel=0.2)
        assert measured[name]["peak_memory_bytes"] < measured["baseline"]["peak_memory_bytes"], "the library brings no torch"
    [answer] = run(folder, "predict", "chat@champion", "nyumba ya", "--tokens", "6")["predictions"]
    assert 0 < answer["tokens"] <= 6 or answer["ended"]
    run(folder, "export", "chat@champion", "out", "--to", "genai")
    for name in ("model.onnx", "genai_config.json"):
        kept = {sha256_file(path) for path in (folder / "mlflow" / "store" / "artifacts").rglob(name)}
        assert sha256_file(folder / "out" / name) in kept
    again = run(folder, "run", "recipe.yaml")
    assert again["evaluations"] == outcome["evaluations"], "everything was found"
