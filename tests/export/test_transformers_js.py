"""Exported folders, read by transformers.js in node: the same logits for the same tokens, and the same label for a text that it cuts into tokens itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import get_benchmark
from recompress.export import export
from recompress.models import onnx_graph
from recompress.models.checkpoint import load
from recompress.predict import Predictor
from recompress.runtimes import open_runtime
from tests.evidence.test_foreign import UNREACHABLE
from tests.export.test_export import model
from tests.six import texts

REPOSITORY = Path(__file__).parent.parent.parent
TOOLS = REPOSITORY / ".cache" / "npm-transformers"
"""npm's packages, fetched once for a checkout."""
SCRIPT = """
import { AutoTokenizer, AutoModelForSequenceClassification, AutoModelForTokenClassification, Tensor, env, pipeline } from '@huggingface/transformers';
import fs from 'node:fs';
const asked = JSON.parse(fs.readFileSync(process.argv[2]));
env.allowRemoteModels = false; env.localModelPath = asked.place;
const kind = asked.tagged ? AutoModelForTokenClassification : AutoModelForSequenceClassification;
const network = await kind.from_pretrained(asked.name, { dtype: asked.dtype, device: 'cpu' });
const logits = [];
for (const ids of asked.ids) {
  const shape = [1, ids.length], row = BigInt64Array.from(ids, BigInt);
  const { logits: answer } = await network({ input_ids: new Tensor('int64', row, shape), attention_mask: new Tensor('int64', row.map(() => 1n), shape) });
  logits.push(Array.from(answer.data));
}
let labels = [];
if (!asked.tagged) {
  const classify = await pipeline('text-classification', asked.name, { dtype: asked.dtype, device: 'cpu' });
  for (const text of asked.texts) labels.push((await classify(text))[0].label);
}
console.log(JSON.stringify({ logits, labels }));
"""


@pytest.fixture(scope="module")
def tools() -> Path:
    """transformers.js, where node is there and npm's registry answers. Its scripts are not run: the graph's runtime for the CPU comes in the package."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed here, so transformers.js cannot read an export")
    TOOLS.mkdir(parents=True, exist_ok=True)
    if not (TOOLS / "node_modules" / "@huggingface" / "transformers").is_dir():
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(TOOLS), "@huggingface/transformers@4.3.2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=os.environ | {"npm_config_update_notifier": "false"})
        if done.returncode and any(word in done.stderr for word in UNREACHABLE):
            pytest.skip(f"npm's registry does not answer here, so transformers.js cannot read an export: {done.stderr.strip().splitlines()[0][:120]}")
        assert done.returncode == 0, done.stderr
    return TOOLS


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "steps", "dtype"),
    [
        ("distilbert", [], "fp32"),
        ("distilbert", "beside", "fp32"),
        ("distilbert", [("dynamic_int8", {})], "q8"),
        ("bert", [("prune_structure", {"heads": 0.5, "neurons": 0.5}), ("dynamic_int8", {})], "q8"),
        ("roberta", [], "fp32"),
    ],
    ids=str,
)
def test_transformers_js_answers_as_the_model_does(
    tools: Path, tmp_path: Path, family: str, steps: list[tuple[str, dict[str, Any]]] | str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``beside``: the weights lie beside the graph, as those of models above 2 GiB do."""
    directory = model(tmp_path, family, *(steps if isinstance(steps, list) else ()))
    examples = texts(6)
    if steps == "beside":
        monkeypatch.setattr(onnx_graph, "LARGEST", 4000)
    export(directory, tmp_path / "out", "onnx", examples=examples)
    assert (tmp_path / "out" / "onnx" / "model.onnx_data").is_file() == (steps == "beside")
    checkpoint = load(directory)
    tagged = checkpoint.info.benchmark == "token-classification"
    features = get_benchmark(checkpoint.info.benchmark).encode(checkpoint.tokenizer, examples, checkpoint.info.labels, checkpoint.info.max_length)
    asked = {
        "place": str(tmp_path), "name": "out", "dtype": dtype, "tagged": tagged, "ids": [feature["input_ids"] for feature in features],
        "texts": [example.words[0] for example in examples],
    }  # fmt: skip
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    (tools / "ask.mjs").write_text(SCRIPT)
    done = subprocess.run(["node", str(tools / "ask.mjs"), str(tmp_path / "asked.json")], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    for theirs, ours in zip(answers["logits"], open_runtime(directory).logits(features, batch_size=1), strict=True):
        np.testing.assert_allclose(np.array(theirs).reshape(ours.shape), ours, atol=1e-4 * np.abs(ours).max())
    if not tagged:
        assert answers["labels"] == [answer["label"] for answer in Predictor(directory)(asked["texts"])]
