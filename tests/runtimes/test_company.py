"""Whoever is asked beside a text, however long, and in whatever order: the text's answer is the same.

To the last bit where texts are put to the model one by one, because a range or a cache would be shared otherwise. Elsewhere sums of floats may come in another order,
where another shape is given to another kernel (a single row is multiplied by another one than several are): that moves the last bits, and where numbers are
rounded behind it by fixed ranges, now and then one of them by a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import get_benchmark
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.runtimes import Runtime, runtime_of
from recompress.runtimes.batches import Batch, pad_batch
from recompress.runtimes.cutting import NBITS, ONNX, PACKED_TORCH, STATIC_INT8, TORCH, Cost, cut
from tests import six
from tests.families import inputs_of, saved

LAST_BITS, A_STEP = 1e-5, 0.05
"""Of the largest logit; a step of one number may carry others with it from layer to layer, so by a step only few texts may move."""
PACKED = {"bits": 4, "group_size": 16, "embeddings": True}
KINDS: dict[str, tuple[list[tuple[str, dict[str, Any]]], float, Cost | None]] = {
    "torch": ([], LAST_BITS, TORCH),
    "packed torch": ([("rtn", PACKED)], LAST_BITS, TORCH),
    "packed torch, rounded inputs": ([("llm_int8", {})], A_STEP, PACKED_TORCH),
    "onnx": ([("onnx_fp32", {})], LAST_BITS, ONNX),
    "dynamic int8": ([("dynamic_int8", {})], 0, None),
    "static int8": ([("static_int8", {"calibration_examples": 16})], A_STEP, STATIC_INT8),
    "codes, rounded inputs": ([("rtn", PACKED), ("onnx_nbits", {})], A_STEP, NBITS),
    "codes": ([("rtn", PACKED), ("onnx_nbits", {"accuracy_level": 1})], LAST_BITS, NBITS),
}
"""Each runtime and format: the steps that make it, how far an answer may move, and what its batches cost; none where texts are asked one by one."""


def made(kind: str, place: Path, benchmark: str) -> Checkpoint:
    folder = saved("roberta", place / "0", benchmark)
    for number, (name, dials) in enumerate(KINDS[kind][0], 1):
        inputs = inputs_of(place / f"work-{number}", benchmark)
        run_step(name, get_method(name).config(**dials), folder, place / str(number), inputs)
        folder = place / str(number)
    return load(folder)


def texts_of(checkpoint: Checkpoint, place: Path) -> list[dict[str, list[int]]]:
    """Of all lengths up to the longest."""
    info, inputs = checkpoint.info, inputs_of(place, checkpoint.info.benchmark)
    features = get_benchmark(info.benchmark).encode(checkpoint.tokenizer, inputs.train[:20], info.labels, info.max_length)
    longest = max(features, key=lambda feature: len(feature["input_ids"]))
    return [{"input_ids": longest["input_ids"][:count]} for count in (1, 2, 5)] + [{"input_ids": feature["input_ids"]} for feature in features]


def moved(runtime: Runtime, features: list[dict[str, list[int]]], others: list[dict[str, list[int]]]) -> list[float]:
    """Of each text the largest change of a logit between being alone and beside ``others``, by the largest logit of all."""
    alone = [runtime.logits([feature])[0] for feature in features]
    together = runtime.logits([*features, *others])[: len(features)]
    assert [one.shape for one in alone] == [one.shape for one in together]
    largest = max(float(np.abs(one).max()) for one in alone)
    return [float(np.abs(one - other).max()) / largest for one, other in zip(alone, together, strict=True)]


def stays(moves: list[float], close: float) -> bool:
    """Whether all texts stay within ``close``, and all but one in five within the last bits: a range that is shared moves nearly all."""
    return max(moves) <= close and sum(move > LAST_BITS for move in moves) <= max(1, len(moves) // 5)


@pytest.mark.parametrize("benchmark", ["text-classification", "token-classification"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_an_answer_does_not_depend_on_what_else_is_asked(kind: str, benchmark: str, tmp_path: Path) -> None:
    checkpoint = made(kind, tmp_path, benchmark)
    features, runtime = texts_of(checkpoint, tmp_path / "texts"), runtime_of(checkpoint)
    close = KINDS[kind][1]
    long = {"input_ids": (features[-1]["input_ids"] * 60)[:60]}
    runtime.cost = Cost(call=10**6, even=10**6, crowd=10**6)  # type: ignore[attr-defined]  # all that may share a call share one
    assert stays(moved(runtime, features, []), close)
    assert stays(moved(runtime, features[::-1], []), close), "another order"
    assert stays(moved(runtime, features, [long]), close), "a long neighbour"
    assert stays(moved(runtime, features[:1], [long]), close), "a long neighbour alone"


@pytest.mark.parametrize("kind", list(KINDS))
def test_texts_share_calls_as_they_cost_least_on_their_runtime(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made(kind, tmp_path, "text-classification")
    runtime: Any = runtime_of(checkpoint)
    features = [{"input_ids": [5] * length} for length in (3, 30, 9, 3, 31, 60, 4, 3, 40, 40)]
    asked: list[tuple[int, ...]] = []
    run = runtime._run

    def looked(batch: Batch) -> np.ndarray:
        asked.append(batch["input_ids"].shape)
        answers: np.ndarray = run(batch)
        return answers

    monkeypatch.setattr(runtime, "_run", looked)
    runtime.logits(features)
    cost = KINDS[kind][2]
    lengths = [len(feature["input_ids"]) for feature in features]
    parts = cut(lengths, 1 if cost is None else 32, cost or TORCH)
    assert asked == [(len(part), max(lengths[i] for i in part)) for part in parts]


def test_what_stands_in_padding_has_no_effect(tmp_path: Path) -> None:
    for kind in ("torch", "onnx"):
        checkpoint = made(kind, tmp_path / kind, "token-classification")
        runtime: Any = runtime_of(checkpoint)
        short, long = texts_of(checkpoint, tmp_path / kind / "texts")[2:4]
        batch = pad_batch([short, long], 1)
        count = len(short["input_ids"])
        other = {**batch, "input_ids": batch["input_ids"].copy()}
        other["input_ids"][0, count:] = 7
        assert count < batch["input_ids"].shape[1]
        assert np.array_equal(runtime._run(batch)[0, :count], runtime._run(other)[0, :count])


def test_llama_cpp_is_asked_one_by_one(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    save(six.checkpoint_of("llama"), tmp_path / "source")
    run_step("gguf", get_method("gguf").config(), tmp_path / "source", tmp_path / "served", six.inputs_of("llama", tmp_path / "work"))
    checkpoint = load(tmp_path / "served")
    features = six.features_of(load(tmp_path / "source"), "llama", count=5)
    runtime = runtime_of(checkpoint)
    assert set(moved(runtime, features, [features[0]])) == {0}
    assert set(moved(runtime, features[::-1], [])) == {0}
