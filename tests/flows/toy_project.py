"""A project of its own for end-to-end tests: made-up text, a tiny random encoder, real DVC, Prefect and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from flows.cli import main
from recompress.integrity.digest import sha256_file
from tests.tiny import tiny_checkpoint, tiny_examples

RECIPE = """
name: toy
benchmark: text-classification
dataset: {{name: toy, unlabelled: words, waive: [{{check: label_balance, reason: "a few hundred made-up sentences, drawn at random"}}]}}
base: {{model: base, sha256: {sha256}}}
seed: 0
baseline: {{epochs: 3, learning_rate: 3.0e-3, batch_size: 32, max_length: 32, precision: fp32}}
variants:
  int8:
    - dynamic_int8: {{}}
  small:
    - trim_vocabulary: {{}}
    - prune_structure: {{layers: 1, neurons: 0.5}}
    - distill: {{epochs: 2, learning_rate: 3.0e-3, precision: fp32}}
    - dynamic_int8: {{}}
  sparse:
    - magnitude: {{sparsity: 0.5}}
    - finetune: {{epochs: 1, learning_rate: 1.0e-3, precision: fp32}}
policy: policies/toy.yaml
register: {{model: toy}}
"""
POLICY = """
metric: accuracy
baseline: {margin: 0.2}
champion: {margin: 0.2}
loss_budget: 0.4
first_promotion: allowed
min_examples: {overall: 100}
finalists: 5
choose: smallest
"""
PARAMS = """
datasets:
  toy: {benchmark: text-classification, format: jsonl, source: raw/toy, files: "{slice}/{split}.jsonl"}
  words: {benchmark: language-modelling, format: lines, source: raw/words, files: "{slice}.txt"}
"""
DVC = """
stages:
  prepare:
    foreach: ${datasets}
    do:
      cmd: python -m recompress.data.prepare ${key}
      deps: ["${item.source}"]
      params: ["datasets.${key}"]
      outs: ["prepared/${key}"]
"""


def make_project(folder: Path) -> Path:
    """The whole project, its data prepared and pinned by DVC."""
    from recompress.models.checkpoint import save

    save(tiny_checkpoint("text-classification", layers=2), folder / "base")
    for split, count, seed in (("train", 300, 1), ("dev", 60, 2), ("test", 240, 3)):
        for slice_ in ("east", "west"):
            rows = tiny_examples(count, "text-classification", seed=seed + 10 * (slice_ == "west"))
            path = folder / "raw" / "toy" / slice_ / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            # a number in each text keeps test sentences out of train
            path.write_text("".join(json.dumps({"text": f"{row.words[0]} {split} {i} {slice_}", "label": row.labels[0]}) + "\n" for i, row in enumerate(rows)))
    (folder / "raw" / "words").mkdir()
    (folder / "raw" / "words" / "east.txt").write_text(
        "".join(f"{row.words[0]} {i}\n" for i, row in enumerate(tiny_examples(80, "text-classification", seed=9)))
    )
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", DVC), (".gitignore", "/prepared\n/mlflow\n/.prefect\n/.recompress\n/reports\n/ledger\n/keys\n")):
        (folder / name).write_text(text.lstrip())
    (folder / "policies").mkdir()
    (folder / "policies" / "toy.yaml").write_text(POLICY.lstrip())
    (folder / "recipe.yaml").write_text(RECIPE.format(sha256=sha256_file(folder / "base" / "model.safetensors")).lstrip())
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], [sys.executable, "-m", "dvc", "add", "-q", "raw/toy", "raw/words"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(folder), capture_output=True)
    for name in ("toy", "words"):
        run(folder, "data", "accept", name)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without whatever would lead outside the project."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "RECOMPRESS_"))}
    return inherited | {
        "RECOMPRESS_ACTOR": "tester",
        "PREFECT_HOME": str(folder / ".prefect"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def ask(folder: Path, *arguments: str) -> Any:
    """``recompress … --json`` in this process, for commands that run no flow: what it says on stdout. They start in a second less than a process takes."""
    result = CliRunner().invoke(main, ["--root", str(folder), *arguments, "--json"], env={"RECOMPRESS_ACTOR": "tester"})
    assert result.exit_code == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def run(folder: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """``recompress … --json`` in a process of its own: what it says on stdout."""
    completed = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=1200,
        check=False,
    )
    assert completed.returncode == code, completed.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(completed.stdout)
    return outcome
