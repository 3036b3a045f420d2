"""A project that can be looked at and is never run: a recipe with a base on a hub, data that is pinned, and no stores."""

from __future__ import annotations

from pathlib import Path

from tasks.data.pins import measure

RECIPE = """\
# head comment
name: toy
benchmark: text-classification
dataset: {{name: toy}}
base: {{model: {model}, revision: {revision}, sha256: {sha256}}}   # the pin
seed: 0
baseline: {{epochs: 1, learning_rate: 3.0e-3, batch_size: 32}}
variants:
  int8:
    - dynamic_int8: {{}}
policy: policies/toy.yaml
register: {{model: toy}}
"""
POLICY = "metric: accuracy\nbaseline: {margin: 0.2}\nchampion: {margin: 0.2}\nloss_budget: 0.4\nfirst_promotion: allowed\nmin_examples: {overall: 100}\nchoose: smallest\n"
PARAMS = 'datasets:\n  toy: {benchmark: text-classification, format: jsonl, source: raw/toy, files: "{split}.jsonl"}\n'
DVC = "stages:\n  prepare:\n    foreach: ${datasets}\n    do: {cmd: python -m recompress.data.prepare ${key}, outs: ['prepared/${key}']}\n"


def make_small_project(root: Path, *, model: str, revision: str, sha256: str, watch: str = "settle: 0s\n") -> Path:
    """The project, with a recipe at ``recipes/toy.yaml``."""
    for folder in ("recipes", "policies", "raw/toy"):
        (root / folder).mkdir(parents=True)
    (root / "raw" / "toy" / "train.jsonl").write_text('{"text": "a", "label": "b"}\n')
    raw = measure(root / "raw" / "toy").md5
    out = "{{path: {path}, hash: md5, md5: {md5}}}"
    (root / "raw" / "toy.dvc").write_text(f"outs:\n- {out.format(path='toy', md5=raw)}\n")
    deps = f"    deps: [{out.format(path='raw/toy', md5=raw)}]\n"
    prepared = out.format(path="prepared/toy", md5="0" * 32 + ".dir")
    (root / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  prepare@toy:\n    cmd: x\n{deps}    outs: [{prepared}]\n")
    (root / "recipes" / "toy.yaml").write_text(RECIPE.format(model=model, revision=revision, sha256=sha256))
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", DVC), ("policies/toy.yaml", POLICY), ("watch.yaml", watch)):
        (root / name).write_text(text)
    return root
