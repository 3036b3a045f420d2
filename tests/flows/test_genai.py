"""The whole way of a model of language that ends on ONNX Runtime GenAI: what was judged there is what is served and handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from tests.flows.chat_project import check_judged_and_served, make_project
from tests.flows.toy_project import run

pytest.importorskip("gguf")
pytest.importorskip("onnxruntime_genai")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
VARIANTS = """\
  int4:
    - onnx_genai: {}
  gptq_int4:
    - gptq: {bits: 4, group_size: 32, calibration_examples: 8}
    - onnx_genai_nbits: {}
"""


def test_from_a_file_to_a_folder(tmp_path: Path) -> None:
    folder = make_project(tmp_path, VARIANTS)
    outcome = run(folder, "run", "recipe.yaml")
    check_judged_and_served(folder, outcome, {"int4", "gptq_int4"})
    run(folder, "export", "chat@champion", "out", "--to", "genai")
    for name in ("model.onnx", "genai_config.json"):
        kept = {sha256_file(path) for path in (folder / "mlflow" / "store" / "artifacts").rglob(name)}
        assert sha256_file(folder / "out" / name) in kept
    again = run(folder, "run", "recipe.yaml")
    assert again["evaluations"] == outcome["evaluations"], "everything was found"
