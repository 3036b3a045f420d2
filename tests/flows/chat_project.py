"""A project whose base is a tiny model of language in a GGUF file, and what every champion made of it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recompress.integrity.digest import sha256_file
from recompress.models.gguf.writing import as_kind, write_gguf
from tests.flows.toy_project import DVC, environment, run
from tests.six import checkpoint_of, texts

PARAMS = "datasets:\n  lines: {benchmark: language-modelling, format: lines, source: raw/lines, files: '{split}.txt', running_text: true}\n"
RECIPE = """
name: chat
benchmark: language-modelling
dataset: {{name: lines}}
baseline: {{model: tiny.gguf, sha256: {sha256}, max_length: 16}}
variants:
{variants}policy: policy.yaml
register: {{model: chat}}
"""
POLICY = "metric: negative_bits_per_byte\nbaseline: {margin: 0.5}\nchampion: {margin: 0.5}\nloss_budget: 0.9\nfirst_promotion: allowed\nmin_examples: {overall: 100}\nchoose: smallest\n"


def make_project(folder: Path, variants: str) -> Path:
    """Lines of text, a model in a file with a chat template, and a recipe with these variants of it."""
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
        ("recipe.yaml", RECIPE.format(sha256=sha256_file(folder / "tiny.gguf"), variants=variants)),
    ):
        (folder / name).write_text(text)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], [sys.executable, "-m", "dvc", "add", "-q", "raw/lines"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(folder), capture_output=True)
    run(folder, "data", "accept", "lines")
    return folder


def check_judged_and_served(folder: Path, outcome: dict[str, Any], names: set[str]) -> None:
    """All variants were measured in their own runtime, without torch, one was promoted, and it writes."""
    measured = {row["model"]: row["metrics"] for row in outcome["evaluations"]}
    assert measured.keys() == {"baseline", *names}
    assert outcome["promotion"]["registered"] == "chat"
    for name in names:
        assert measured[name]["decode_per_s"] > 0
        assert measured[name]["bits_per_byte"] == pytest.approx(measured["baseline"]["bits_per_byte"], rel=0.2)
        assert measured[name]["peak_memory_bytes"] < measured["baseline"]["peak_memory_bytes"], "its library brings no torch"
    [answer] = run(folder, "predict", "chat@champion", "nyumba ya", "--tokens", "6")["predictions"]
    assert 0 < answer["tokens"] <= 6 or answer["ended"]
