"""The whole way of a model of language: its base is a GGUF file, its champion is one, and what was judged in llama.cpp is what is served and handed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recompress.integrity.digest import sha256_file
from recompress.models.gguf.writing import as_kind, write_gguf
from tests.flows.toy_project import DVC, environment, run
from tests.six import checkpoint_of, texts

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PARAMS = "datasets:\n  lines: {benchmark: language-modelling, format: lines, source: raw/lines, files: '{split}.txt', running_text: true}\n"
RECIPE = """
name: chat
benchmark: language-modelling
dataset: {{name: lines}}
baseline: {{model: tiny.gguf, sha256: {sha256}, max_length: 16}}
variants:
  q8:
    - gguf: {{weights: q8_0}}
  gptq_q4:
    - gptq: {{bits: 4, group_size: 32, symmetric: true, calibration_examples: 8}}
    - gguf_nbits: {{rest: q8_0}}
policy: policy.yaml
register: {{model: chat}}
"""
POLICY = "metric: negative_bits_per_byte\nbaseline: {margin: 0.5}\nchampion: {margin: 0.5}\nloss_budget: 0.9\nfirst_promotion: allowed\nmin_examples: {overall: 100}\nchoose: smallest\n"


def make_project(folder: Path, recipe: str = RECIPE) -> Path:
    """Lines of text, and a model in a file with a chat template."""
    checkpoint = checkpoint_of("llama")
    checkpoint.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    (folder / "raw" / "lines").mkdir(parents=True)
    write_gguf(checkpoint.torch_network, checkpoint.tokenizer, folder / "tiny.gguf", kind="F16", coding=lambda place: as_kind(place, "F16"), name="tiny")
    for seed, (split, count) in enumerate((("train", 200), ("dev", 60), ("test", 240))):
        rows = (f"{example.words[0]} {split} {i}\n" for i, example in enumerate(texts(count, seed)))
        (folder / "raw" / "lines" / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
    for name, text in (
        ("params.yaml", PARAMS),
        ("dvc.yaml", DVC.lstrip()),
        ("policy.yaml", POLICY),
        ("recipe.yaml", recipe.format(sha256=sha256_file(folder / "tiny.gguf"))),
    ):
        (folder / name).write_text(text)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], [sys.executable, "-m", "dvc", "add", "-q", "raw/lines"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(folder), capture_output=True)
    run(folder, "data", "accept", "lines")
    return folder


def test_from_a_file_to_a_file(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    outcome = run(folder, "run", "recipe.yaml")
    measured = {row["model"]: row["metrics"] for row in outcome["evaluations"]}
    assert measured.keys() == {"baseline", "q8", "gptq_q4"}
    assert outcome["promotion"]["registered"] == "chat"
    for name in ("q8", "gptq_q4"):
        assert measured[name]["decode_per_s"] > 0
        assert measured[name]["bits_per_byte"] == pytest.approx(measured["baseline"]["bits_per_byte"], rel=0.2)
        assert measured[name]["peak_memory_bytes"] < measured["baseline"]["peak_memory_bytes"], "llama.cpp brings no torch"
    [answer] = run(folder, "predict", "chat@champion", "nyumba ya", "--tokens", "6")["predictions"]
    assert 0 < answer["tokens"] <= 6 or answer["ended"]
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
