"""Which text models are measured on, on how many threads, and who is asked what."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.benchmarks import Example, get_benchmark
from recompress.measure import latency, memory, request, speed
from recompress.measure.request import Request
from recompress.models.checkpoint import save
from recompress.runtimes import Feature
from tests.tiny import TAGS, tiny_checkpoint


class Asked:
    """A runtime that takes a millisecond for each example and writes down what it is asked."""

    def __init__(self) -> None:
        self.numbers: list[list[int]] = []

    def logits(self, features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
        self.numbers.append([feature["input_ids"][0] for feature in features])
        time.sleep(0.001 * len(features))
        return [np.zeros(2)] * len(features)


def request_of(**changes: Any) -> Request:
    usual = {"directories": (Path("a"), Path("b")), "threads": 3, "rounds": 2, "batch_size": 4, "batches": 2}
    features = tuple(tuple({"input_ids": [10 * model + i]} for i in range(3)) for model in (1, 2))
    return Request(**{**usual, "features": features, **changes})


def test_each_model_is_asked_in_its_own_tokens_and_throughput_is_that_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = [Asked(), Asked()]
    monkeypatch.setattr(latency, "open_all", lambda _: runtimes)
    figures = latency.answer(request_of())
    for number, runtime in enumerate(runtimes, 1):
        assert {one // 10 for call in runtime.numbers for one in call} == {number}
    assert all(100 < one["figures"]["throughput_per_s"] < 1500 for one in figures), "a thousand a second, and not four thousand"


def test_memory_is_looked_at_after_a_batch_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = [Asked(), Asked()]
    monkeypatch.setattr(memory, "open_all", lambda _: runtimes)
    memory.answer(request_of())
    assert [runtime.numbers[0] for runtime in runtimes] == [[10, 11, 12, 10], [20, 21, 22, 20]]


def test_models_are_opened_on_as_many_threads_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, int]] = []
    monkeypatch.setattr(request, "open_runtime", lambda directory, threads: opened.append((directory, threads)))
    monkeypatch.setitem(__import__("sys").modules, "torch", type("Torch", (), {"set_num_threads": staticmethod(lambda _: None)}))
    request.open_all(request_of())
    assert opened == [(Path("a"), 3), (Path("b"), 3)]


def test_the_texts_that_are_timed_are_spread_over_the_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(layers=1)
    save(checkpoint, tmp_path / "model")
    examples = [Example(("kula",) * (1 + i // 10), ("O",) * (1 + i // 10)) for i in range(200)]
    requests: list[Request] = []
    figures = {"processor_p50_ms": 1.0, "latency_p50_ms": 1.0, "latency_p95_ms": 1.0, "throughput_per_s": 1.0}

    def ask(module: str, asked: Request, folder: Path) -> Any:
        requests.append(asked)
        return (
            {"peak_memory_bytes": 2, "steady_memory_bytes": 1}
            if module.endswith("memory")
            else [{"figures": figures, "rounds": {name: [value] for name, value in figures.items()}, "load": {}} for _ in asked.directories]
        )

    monkeypatch.setattr(speed, "ask", ask)
    speed.measure(tmp_path / "model", tmp_path / "model", examples, tmp_path)
    encoded = get_benchmark("token-classification").encode(checkpoint.tokenizer, examples, TAGS, 32)
    places = [round(i * 199 / 31) for i in range(32)]
    assert [feature["input_ids"] for feature in requests[0].features[0]] == [encoded[i]["input_ids"] for i in places]
