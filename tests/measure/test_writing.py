"""How fast models of language write: what is told of those that can, beside the baseline, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.measure import writing
from recompress.measure.request import Request
from recompress.measure.speed import measure_rounds
from recompress.measure.writing import WRITTEN, can_write, timed
from recompress.methods.full_precision import in_full_precision
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import save
from recompress.models.gguf import GGUF_FILE
from recompress.models.gguf.reading import read_tensors
from tests.six import checkpoint_of, inputs_of, texts

TOLD = {"token_ms", "prefill_per_s", "first_token_p50_ms", "decode_per_s", "prefill_ratio", "decode_ratio", "writing_memory_bytes"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A decoder, and the same as a file."""
    pytest.importorskip("xllamacpp")
    folder = tmp_path_factory.mktemp("models")
    save(checkpoint_of("llama"), folder / "base")
    run_step("gguf", get_method("gguf").config(), folder / "base", folder / "made", inputs_of("llama", folder / "work"))
    return folder / "base", folder / "made"


def in_this_process(module: str, request: Request, folder: Path) -> Any:
    assert module == writing.MODULE
    return writing.answer(request)


@pytest.mark.usefixtures("one_thread")
def test_a_served_decoder_writes_beside_its_baseline(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writing, "ask", in_this_process)
    prompts = tuple({"input_ids": list(range(1, 9 + i))} for i in range(3))
    request = Request(directories=models, features=(prompts, prompts), threads=1, rounds=6, batch_size=1, batches=1)
    told = writing.measure_writing(models, request, tmp_path)
    (base, of_base, load), (made, of_made, _) = told[models[0]], told[models[1]]
    assert base.keys() == made.keys() == TOLD - {"decode_ratio"}
    assert load.keys() == {"processor_share", "steal_share", "switches_per_s"}
    assert all(value > 0 for figures in (base, made) for value in figures.values())
    assert len(of_base["decode_per_s"]) == len(of_made["decode_per_s"]) == writing.ROUNDS
    assert base["prefill_ratio"] == 1
    assert made["prefill_ratio"] == pytest.approx(np.median(of_made["prefill_per_s"]) / np.median(of_base["prefill_per_s"]))
    assert of_made["token_ms"] == pytest.approx([1000 / rate for rate in of_made["decode_per_s"]])
    many = request.model_copy(update={"writing_rounds": 7})
    assert len(writing.measure_writing(models, many, tmp_path)[models[1]][1]["token_processor_ms"]) == 7


@pytest.mark.long
def test_a_served_decoder_is_measured_beside_its_baseline(models: tuple[Path, Path], tmp_path: Path) -> None:
    others = in_full_precision(models[0], ["torch", "gguf"], inputs_of("llama", tmp_path / "work").train, tmp_path / "full")
    base, made = measure_rounds(models, models[0], texts(4), tmp_path / "measured", others=others)
    assert others.keys() == {"gguf"}
    assert {tensor.kind for tensor in read_tensors(others["gguf"] / GGUF_FILE).values()} == {"F32"}
    assert made.rounds["latency_ratio_runtime"] == made.rounds["latency_ratio_gguf"] != made.rounds["latency_ratio"]
    assert base.rounds["latency_ratio_runtime"] == base.rounds["latency_ratio"] == [1.0] * len(base.rounds["latency_ratio"])
    for one in (base, made):
        assert one.metrics.keys() >= TOLD
        assert all(one.metrics[name] > 0 for name in TOLD)
        assert len(one.rounds["decode_per_s"]) == writing.ROUNDS
        assert one.metrics["decode_per_s"] == pytest.approx(np.median(one.rounds["decode_per_s"]))
    assert (base.metrics["decode_ratio"], base.metrics["prefill_ratio"]) == (1, 1)
    assert made.metrics["decode_ratio"] == pytest.approx(base.metrics["token_ms"] / made.metrics["token_ms"])
    assert made.rounds["decode_ratio"] == pytest.approx([before / now for before, now in zip(base.rounds["token_ms"], made.rounds["token_ms"], strict=True)])
    assert made.rounds["decode_ratio_runtime"] == made.rounds["decode_ratio_gguf"] != made.rounds["decode_ratio"]
    assert len(made.rounds["decode_processor_ratio_runtime"]) == writing.ROUNDS
    assert made.metrics["writing_memory_bytes"] < 0.8 * base.metrics["writing_memory_bytes"], "llama.cpp brings no torch"


def test_who_writes_nothing_is_not_measured_so(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "bert")
    assert not can_write(tmp_path / "bert")
    request: Any = None
    assert writing.measure_writing([tmp_path / "bert"], request, tmp_path) == {}


class Clocked:
    """Takes ten for a prompt and one for each token behind it."""

    positions = 99

    def __init__(self) -> None:
        self.now, self.read = 0.0, 0

    def prefill(self, tokens: Any, room: int) -> Any:
        self.now += 10
        self.read += len(tokens)
        return np.eye(4)[2]

    def decode(self, token: int) -> Any:
        self.now += 1
        self.read += 1
        return np.eye(4)[token]


def test_the_first_token_is_the_prompts_and_the_others_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Clocked()
    monkeypatch.setattr(writing, "perf_counter", lambda: runtime.now)
    monkeypatch.setattr(writing, "process_time", lambda: 2 * runtime.now)
    assert timed(runtime, [1] * 5, WRITTEN) == (10, WRITTEN - 1, 2 * (WRITTEN - 1))
    assert runtime.read == 5 + WRITTEN - 1
    seconds = np.array([[[10.0, 15.0, 30.0]] * 3, [[20.0, 30.0, 60.0]] * 3])
    told = writing._told(seconds, [50, 100])
    assert told["figures"] == {
        "prefill_per_s": 5.0,
        "first_token_p50_ms": 15000.0,
        "decode_per_s": 2 * (WRITTEN - 1) / 45,
        "token_ms": 45000 / 2 / (WRITTEN - 1),
    }
    assert told["rounds"]["token_processor_ms"] == [90000 / 2 / (WRITTEN - 1)] * 3
