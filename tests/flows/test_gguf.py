"""The whole way of a model of language: its base is a GGUF file, its champion is one, and what was judged in llama.cpp is what is served and handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from tests.flows.chat_project import check_judged_and_served, make_project
from tests.flows.toy_project import run

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
VARIANTS = """\
  q8:
    - gguf: {weights: q8_0}
  gptq_q4:
    - gptq: {bits: 4, group_size: 32, symmetric: true, calibration_examples: 8}
    - gguf_nbits: {rest: q8_0}
"""


def test_from_a_file_to_a_file(tmp_path: Path) -> None:
    folder = make_project(tmp_path, VARIANTS)
    outcome = run(folder, "run", "recipe.yaml")
    check_judged_and_served(folder, outcome, {"q8", "gptq_q4"})
    [scored] = run(folder, "predict", "chat@champion", "nyumba ya asha", "--tokens", "0")["predictions"]
    assert scored["perplexity"] > 1
    run(folder, "export", "chat@champion", "out", "--to", "gguf")
    kept = {sha256_file(path) for path in (folder / "mlflow" / "store" / "artifacts").rglob("model.gguf")}
    assert sha256_file(folder / "out" / "model.gguf") in kept
    assert "1 record" not in str(run(folder, "audit", "verify"))
    again = run(folder, "run", "recipe.yaml")
    assert again["evaluations"] == outcome["evaluations"], "everything was found"
    (folder / "tiny.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:-9000])
    refused = run(folder, "run", "recipe.yaml", code=5)
    assert "tiny.gguf has sha256" in refused["error"]
