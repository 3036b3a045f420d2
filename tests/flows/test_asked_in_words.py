"""A model of language asked in words, from its file to a champion: labels named after examples, on the data of text classification, and prompts answered beside right texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recompress.integrity.digest import sha256_file
from recompress.models.gguf.writing import as_kind, write_gguf
from tests.flows.toy_project import DVC, environment, run
from tests.six import checkpoint_of
from tests.tiny import tiny_examples

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
TOPICS = """  topics: {benchmark: text-classification, format: jsonl, source: raw/topics, files: '{split}.jsonl'}
"""
PROMPTS = """  prompts: {benchmark: text-generation, format: jsonl, source: raw/prompts, files: '{split}.jsonl', text: prompt, label: answers}
"""
WAIVE = "[{check: label_balance, reason: a few made-up sentences}]"
RECIPE = """
name: {name}
benchmark: {benchmark}
dataset: {{name: {data}, waive: {waive}}}
answering: {answering}
baseline: {{model: tiny.gguf, sha256: {sha256}, max_length: 200}}
variants:
  q8:
    - gguf: {{weights: q8_0}}
  rtn_4:
    - rtn: {{bits: 4, group_size: 32}}
policy: {name}_policy.yaml
register: {{model: {name}}}
"""
POLICY = (
    "metric: {metric}\nbaseline: {{margin: 0.95}}\nchampion: {{margin: 0.95}}\nloss_budget: 0.99\nfirst_promotion: allowed\n"
    "min_examples: {{overall: 100}}\nchoose: smallest\n"
)


def rows(seed: int, count: int, kind: str) -> list[dict[str, Any]]:
    every = tiny_examples(count, "text-classification", seed=seed)
    if kind == "topics":
        return [{"text": f"{row.words[0]} {seed} {i}", "label": row.labels[0]} for i, row in enumerate(every)]
    return [{"prompt": f"{row.words[0]}\n{seed} {i}", "answers": [row.words[0], row.labels[0]]} for i, row in enumerate(every)]


def project(folder: Path, kind: str, entry: str, recipe: dict[str, str], metric: str) -> None:
    checkpoint = checkpoint_of("llama", max_position_embeddings=256)
    (folder / "raw" / kind).mkdir(parents=True)
    write_gguf(checkpoint.torch_network, checkpoint.tokenizer, folder / "tiny.gguf", kind="F16", coding=lambda place: as_kind(place, "F16"), name="tiny")
    for seed, (split, count) in enumerate((("train", 60), ("dev", 60), ("test", 120))):
        text = "".join(json.dumps(row) + "\n" for row in rows(seed, count, kind))
        (folder / "raw" / kind / f"{split}.jsonl").write_text(text, encoding="utf-8")
    for file, text in (
        ("params.yaml", f"datasets:\n{entry}"),
        ("dvc.yaml", DVC.lstrip()),
        (f"{recipe['name']}_policy.yaml", POLICY.format(metric=metric)),
        ("recipe.yaml", RECIPE.format(data=kind, waive=WAIVE if kind == "topics" else "[]", sha256=sha256_file(folder / "tiny.gguf"), **recipe)),
    ):
        (folder / file).write_text(text)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], [sys.executable, "-m", "dvc", "add", "-q", f"raw/{kind}"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(folder), capture_output=True)
    run(folder, "data", "accept", kind)


def test_labels_are_named_after_examples(tmp_path: Path) -> None:
    recipe = {"name": "few", "benchmark": "few-shot-classification", "answering": "{shots: 3, scored: per_byte, without_content: [N/A]}"}
    project(tmp_path, "topics", TOPICS, recipe, "accuracy")
    outcome = run(tmp_path, "run", "recipe.yaml")
    measured = {row["model"]: row["metrics"] for row in outcome["evaluations"]}
    assert measured.keys() == {"baseline", "q8", "rtn_4"}
    assert all({"accuracy", "macro_f1", "accuracy_per_token"} <= metrics.keys() for metrics in measured.values())
    assert outcome["promotion"]["registered"] == "few"
    [answer] = run(tmp_path, "predict", "few@champion", "nyumba ya asha")["predictions"]
    assert 0 < answer["score"] <= 1
    assert answer["label"] in {row["label"] for row in rows(0, 60, "topics")}
    again = run(tmp_path, "run", "recipe.yaml")
    assert again["evaluations"] == outcome["evaluations"], "everything was found"
    assert "1 record" not in str(run(tmp_path, "audit", "verify"))


def test_what_is_written_is_judged_beside_the_baseline(tmp_path: Path) -> None:
    recipe = {"name": "writes", "benchmark": "text-generation", "answering": "{tokens: 8}"}
    project(tmp_path, "prompts", PROMPTS, recipe, "equal_tokens")
    outcome = run(tmp_path, "run", "recipe.yaml")
    measured = {row["model"]: row["metrics"] for row in outcome["evaluations"]}
    assert (measured["baseline"]["equal_tokens"], measured["baseline"]["kl_per_token"]) == (1.0, 0.0)
    for name in ("q8", "rtn_4"):
        assert 0 < measured[name]["equal_tokens"] <= 1
        assert measured[name]["kl_per_token"] > 0
    assert measured["q8"]["kl_per_token"] < measured["rtn_4"]["kl_per_token"], "8 bits are nearer than 4"
    assert outcome["promotion"]["registered"] == "writes"
    [answer] = run(tmp_path, "predict", "writes@champion", "nyumba ya")["predictions"]
    assert answer["tokens"] <= 8
    assert set(answer) == {"completion", "tokens", "ended", "summary"}
