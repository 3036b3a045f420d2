"""Quality: every test example answered once, through the runtime, and metrics that follow from the file of predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import DataRefused, IntegrityError
from recompress.integrity.digest import canonical_json
from recompress.measure.quality import evaluate_quality, predict
from recompress.models.checkpoint import save
from recompress.runtimes import runtime_of
from tests.tiny import TAGS, tiny_checkpoint, tiny_examples

COUNT = 276
"""Examples of several batches."""


@pytest.mark.parametrize("benchmark_name", ["token-classification", "text-classification"])
def test_metrics_follow_from_the_predictions_file(tmp_path: Path, benchmark_name: str) -> None:
    save(tiny_checkpoint(benchmark_name), tmp_path / "model")
    examples = tiny_examples(60, benchmark_name)
    quality = evaluate_quality(tmp_path / "model", examples, tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    rows = table.to_pylist()
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    benchmark, labels = get_benchmark(metadata["benchmark"]), json.loads(metadata["labels"])
    assert [row["example"] for row in rows] == list(range(60))
    assert [tuple(row["reference"]) for row in rows] == [example.labels for example in examples]
    assert json.loads(metadata["count_names"]) == list(benchmark.count_names(labels))
    again = benchmark.counts([row["reference"] for row in rows], [row["prediction"] for row in rows], labels)
    assert again.tolist() == [row["counts"] for row in rows]
    assert benchmark.primary in quality.metrics
    assert {name: float(value) for name, value in benchmark.metrics(again.sum(axis=0), labels).items() if not np.isnan(value)} == quality.metrics
    of_slice = again[[row["slice"] == "yor" for row in rows]].sum(axis=0)
    assert quality.slices["yor"][benchmark.primary] == float(benchmark.metrics(of_slice, labels)[benchmark.primary])
    assert sorted(quality.slices) == ["swa", "yor"]


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    save(tiny_checkpoint(), tmp_path / "model")
    for name in ("a", "b"):
        evaluate_quality(tmp_path / "model", tiny_examples(20), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "model"]


def test_answers_come_in_the_order_of_the_examples_whatever_their_length() -> None:
    checkpoint, benchmark = tiny_checkpoint(), get_benchmark("token-classification")
    features = benchmark.encode(checkpoint.tokenizer, tiny_examples(COUNT), TAGS, 32)
    runtime = runtime_of(checkpoint)
    together = predict(runtime, benchmark, features)
    for i in (0, 1, COUNT - 2, COUNT - 1):
        assert np.allclose(together[i], benchmark.unit_logits(runtime.logits([features[i]])[0], features[i]), atol=1e-5)


def test_a_metric_without_a_value_is_left_out_and_the_rest_is_plain_json(tmp_path: Path) -> None:
    save(tiny_checkpoint(), tmp_path / "model")
    quality = evaluate_quality(tmp_path / "model", [Example(("kula",), ("O",), "a"), Example(("asha",), ("B-PER",), "b")], tmp_path / "p")
    canonical_json([quality.metrics, quality.slices, quality.types])
    assert "recall" not in quality.slices["a"]
    assert "recall" in quality.slices["b"]


def test_refusals(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    save(checkpoint, tmp_path / "model")
    with pytest.raises(DataRefused, match="test split is empty"):
        evaluate_quality(tmp_path / "model", [], tmp_path / "p")
    with pytest.raises(DataRefused, match="'B-ORG' is not among"):
        evaluate_quality(tmp_path / "model", [Example(("asha",), ("B-ORG",))], tmp_path / "p")
    checkpoint.torch_network.classifier.bias.data[0] = float("nan")
    save(checkpoint, tmp_path / "broken")
    with pytest.raises(IntegrityError, match="not finite for 3 of 3"):
        evaluate_quality(tmp_path / "broken", tiny_examples(3), tmp_path / "p")
    assert not (tmp_path / "p").exists()
