"""Rounds and what else ran: each round is told by itself, more are added on a machine that is not steady, and a process that waits says so."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recompress.measure import latency, load, speed
from recompress.measure.load import Watch
from recompress.measure.request import Request
from recompress.measure.rounds import both_per_round, per_round, ratios, spread, steady
from recompress.runtimes import Feature
from tests.measure.test_requests import request_of


def test_every_round_has_its_own_figures() -> None:
    single = np.array([[0.001, 0.002], [0.003, 0.004], [0.005, 0.006]])  # three texts, two rounds
    rounds = per_round(single, np.array([[0.1, 0.2], [0.3, 0.2]]), 32)
    assert rounds["latency_p50_ms"] == pytest.approx([3.0, 4.0])
    assert rounds["latency_p95_ms"] == pytest.approx([4.8, 5.8])
    assert rounds["throughput_per_s"] == pytest.approx([160.0, 160.0])
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


def test_the_processors_time_is_told_apart_from_the_time_that_passed() -> None:
    """Texts and batches by round: first what passed, then what was worked."""
    single = np.array([[[0.004, 0.008]], [[0.001, 0.003]]])
    batched = np.array([[[0.4, 0.8]], [[0.1, 0.2]]])
    rounds = both_per_round(single, batched, 32)
    assert (rounds["latency_p50_ms"], rounds["processor_p50_ms"]) == (pytest.approx([4.0, 8.0]), pytest.approx([1.0, 3.0]))
    assert (rounds["latency_p95_ms"], rounds["processor_p95_ms"]) == (pytest.approx([4.0, 8.0]), pytest.approx([1.0, 3.0]))
    assert (rounds["throughput_per_s"], rounds["processor_per_s"]) == (pytest.approx([80.0, 40.0]), pytest.approx([320.0, 160.0]))


def test_steady_is_what_varies_little_beside_the_first_model() -> None:
    slower = [1.0, 2.0, 3.0, 4.0]  # the machine slows down, and both models with it
    assert steady([{"latency_p50_ms": slower}, {"latency_p50_ms": [value / 3 for value in slower]}])
    assert not steady([{"latency_p50_ms": slower}, {"latency_p50_ms": [1.0, 1.0, 1.0, 1.0]}])
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(0.5)


class Unsteady:
    """Takes a millisecond; an unsteady one takes three, every other round."""

    def __init__(self, *, steady: bool) -> None:
        self.steady, self.calls = steady, 0

    def logits(self, features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
        self.calls += 1
        time.sleep(0.001 if self.steady or (self.calls // 3) % 2 else 0.004)
        return []


@pytest.mark.parametrize(("is_steady", "blocks"), [(True, 1), (False, 3)])
def test_rounds_are_added_until_they_are_steady_and_no_longer_than_the_cap(monkeypatch: pytest.MonkeyPatch, is_steady: bool, blocks: int) -> None:
    monkeypatch.setattr(latency, "open_all", lambda _: [Unsteady(steady=True), Unsteady(steady=is_steady)])
    monkeypatch.setattr("recompress.measure.rounds.STEADY", 0.5)
    answers = latency.answer(request_of(rounds=4, most=3, batch_rounds=5, cold_rounds=3))
    for one in answers:
        assert len(one["rounds"]["latency_p50_ms"]) == len(one["rounds"]["latency_p95_ms"]) == 4 * blocks
        assert len(one["rounds"]["cold_latency_p50_ms"]) == 3 * blocks
        assert len(one["rounds"]["throughput_per_s"]) == 5 * blocks
        assert one["load"].keys() == {"processor_share", "steal_share", "switches_per_s"}
        assert one["load"]["processor_share"] > 0, "what threads of this process do meanwhile counts too"


def test_ratios_and_memory_come_by_the_round_and_the_metrics_are_their_medians(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, Request]] = []
    sizes = iter([7, 9, 8, 5, 5, 5])

    def ask(module: str, request: Request, folder: Path) -> Any:
        asked.append((module, request))
        if module.endswith("memory"):
            return {"peak_memory_bytes": next(sizes), "steady_memory_bytes": 1}
        figures = [{"latency_p50_ms": value, "latency_p95_ms": value, "throughput_per_s": 1.0} for value in (6.0, 2.0)]
        return [
            {"figures": one, "rounds": {"latency_p50_ms": [one["latency_p50_ms"], 6.0], "processor_p50_ms": [2.0]}, "load": {"processor_share": 1.0}}
            for one in figures
        ]

    def writes(model: Path) -> dict[Path, Any]:
        return {model: ({"prefill_ratio": 2.0}, {"decode_per_s": [4.0]}, {"processor_share": 0.5})}

    for name in ("base", "small"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(speed, "ask", ask)
    monkeypatch.setattr(speed, "_encoded", lambda directory, sample: ())
    monkeypatch.setattr(speed, "measure_writing", lambda models, request, folder: writes(models[1]))
    monkeypatch.setattr(speed, "read_info", lambda directory: SimpleNamespace(runtime="torch"))
    monkeypatch.setattr(speed, "size_bytes", lambda directory: 10)
    monkeypatch.setattr(speed, "parameters", lambda directory: 1)
    plan = speed.Rounds(single=2, batches=3, most=4, memory=3, cold=5)
    base, small = speed.measure_rounds([tmp_path / "base", tmp_path / "small"], tmp_path / "base", [None] * 40, tmp_path, plan=plan)  # type: ignore[list-item]
    assert (asked[0][1].rounds, asked[0][1].batch_rounds, asked[0][1].most, asked[0][1].cold_rounds) == (2, 3, 4, 5)
    assert [request.directories[0].name for _, request in asked[1:]] == ["base", "small"] * 3, "interleaved"
    assert base.rounds["peak_memory_bytes"] == [7, 8, 5]
    assert base.metrics["peak_memory_bytes"] == 7
    assert small.rounds["latency_ratio"] == [3.0, 1.0]
    assert small.metrics["latency_ratio"] == 3.0
    assert small.rounds["processor_ratio"] == [1.0]
    assert (base.load, small.load) == ({"processor_share": 1.0}, {"processor_share": 0.5}), "the busier of the two"
    assert (small.metrics["prefill_ratio"], small.rounds["decode_per_s"]) == (2.0, [4.0])
    assert "prefill_ratio" not in base.metrics


def _work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_process_that_has_to_wait_for_a_processor_says_so() -> None:
    """Two workers and this process on one core: none of them has it for more than about half of the time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    others = [multiprocessing.get_context("spawn").Process(target=_work, args=(8.0,)) for _ in range(2)]
    try:
        for other in others:
            other.start()
        time.sleep(2.5)  # until they have started
        watch = Watch()
        _work(1.5)
        seen = watch.load()
    finally:
        for other in others:
            other.kill()
            other.join()
        os.sched_setaffinity(0, cores)
    assert seen["processor_share"] < 0.75
    assert seen["switches_per_s"] > 1


def test_stolen_time_is_a_share_of_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["cpu  10 0 10 70 0 0 0 10 0 0\n", "cpu  30 0 20 120 0 0 0 30 50 0\n"])
    monkeypatch.setattr(load.Path, "read_text", lambda self, **how: next(texts))
    assert Watch().load()["steal_share"] == pytest.approx(20 / 100)
    monkeypatch.setattr(load.Path, "read_text", lambda self, **how: "")
    assert Watch().load()["steal_share"] == 0
