"""Timing: who is asked what in which order, and what is made of the times. A clock that the models move themselves makes it exact."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import jaxtyped

from recompress.measure import latency
from recompress.measure.latency import interleave, interleave_both
from recompress.measure.request import batch_of
from recompress.runtimes import Feature
from tests.measure.test_requests import request_of

summary = jaxtyped(typechecker=beartype)(latency.summary)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sleeper:
    """A runtime that takes ``each`` seconds for an example, and writes down what it is asked."""

    def __init__(self, name: str, each: float, clock: Clock, log: list[tuple[str, int]]) -> None:
        self.name, self.each, self.clock, self.log, self.threads = name, each, clock, log, 1

    def logits(self, features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
        self.log.append((self.name, features[0]["input_ids"][0]))
        self.clock.now += self.each * len(features)
        return [np.zeros(2)] * len(features)


def ask(each: Sequence[float], questions: int = 5, warmup: int = 1, rounds: int = 3, *, stream: bool = False) -> tuple[np.ndarray, list[tuple[str, int]]]:
    clock, log = Clock(), []
    models = [Sleeper("abc"[i], seconds, clock, log) for i, seconds in enumerate(each)]
    asked = [[[{"input_ids": [i]}] for i in range(questions)] for _ in models]
    return interleave_both(models, asked, warmup=warmup, rounds=rounds, clock=clock, stream=stream)[0], log


def test_every_question_goes_to_all_models_before_the_next_and_who_is_first_rotates() -> None:
    seconds, log = ask([0.001, 0.002, 0.003], questions=4, warmup=1, rounds=2)
    assert seconds.shape == (3, 4, 2)
    assert len(log) == 3 * 4 * 3
    turns = [log[i : i + 3] for i in range(0, len(log), 3)]
    assert all({name for name, _ in turn} == set("abc") and len({question for _, question in turn}) == 1 for turn in turns)
    assert [turn[0][1] for turn in turns] == [0, 1, 2, 3] * 3
    assert {turn[0][0] for turn in turns} == {turn[2][0] for turn in turns} == set("abc")


def test_in_a_stream_each_model_answers_all_before_the_next_and_what_warms_it_up_is_not_timed() -> None:
    seconds, log = ask([0.001, 0.002], questions=3, warmup=1, rounds=2, stream=True)
    assert seconds.shape == (2, 3, 2)
    assert log == [(name, question) for first in ("ab", "ba", "ab") for name in first for question in (2, 0, 1, 2)]
    assert seconds == pytest.approx(np.array([0.001, 0.002])[:, None, None] * np.ones((2, 3, 2)))


class Forgetful(Sleeper):
    """Takes ten times as long where another model was asked just before it."""

    last = ""

    def logits(self, features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
        self.clock.now += 0.0 if Forgetful.last == self.name else 9 * self.each
        Forgetful.last = self.name
        return super().logits(features, batch_size)


def test_hot_figures_are_those_of_a_stream_and_cold_ones_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    models = [Forgetful(name, 0.001, clock, []) for name in "ab"]
    monkeypatch.setattr(latency, "open_all", lambda _: models)
    monkeypatch.setattr(latency, "interleave_both", partial(latency.interleave_both, clock=clock, processor=clock))
    for one in latency.answer(request_of(rounds=2, cold_rounds=3)):
        assert one["figures"]["latency_p50_ms"] == pytest.approx(1)
        assert one["figures"]["cold_latency_p50_ms"] == pytest.approx(10)
        assert one["rounds"]["latency_p50_ms"] == one["rounds"]["processor_p50_ms"] == pytest.approx([1, 1])
        assert one["rounds"]["cold_latency_p50_ms"] == one["rounds"]["cold_processor_p50_ms"] == pytest.approx([10, 10, 10])


def test_a_model_that_sleeps_a_quarter_as_long_is_four_times_as_fast() -> None:
    seconds, _ = ask([0.004, 0.001])
    slow, fast = (summary(model, model, 1) for model in seconds)
    assert slow["latency_p50_ms"] == pytest.approx(4)
    assert slow["latency_p50_ms"] / fast["latency_p50_ms"] == pytest.approx(4)
    assert fast["throughput_per_s"] == pytest.approx(1000)


def test_the_warm_up_and_a_stray_pause_do_not_count() -> None:
    steady = np.full((10, 5), 0.002)
    steady[3, 4] = 1.0  # the machine did something else once
    steady[:, :] *= np.linspace(1, 2, 10)[:, None]
    figures = summary(steady, np.full((2, 3), 0.1), 32)
    assert figures["latency_p50_ms"] == pytest.approx(3.0)
    assert figures["latency_p95_ms"] == pytest.approx(2 * np.percentile(np.linspace(1, 2, 10), 95))
    assert figures["throughput_per_s"] == pytest.approx(320)
    clock, log = Clock(), []
    model = Sleeper("a", 5.0, clock, log)

    def logits(features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
        clock.now += 5.0 if len(log) < 2 else 0.001
        log.append(("a", 0))
        return []

    model.logits = logits  # type: ignore[method-assign]
    assert interleave([model], [[[{"input_ids": [0]}]] * 2], warmup=1, rounds=2, clock=clock).max() == pytest.approx(0.001)


def test_the_collector_of_garbage_rests_while_it_is_timed_and_works_afterwards() -> None:
    seen = []

    class Nosy(Sleeper):
        def logits(self, features: Sequence[Feature], batch_size: int = 32) -> list[np.ndarray]:
            seen.append(gc.isenabled())
            if len(seen) == 3:
                raise KeyboardInterrupt
            return []

    with pytest.raises(KeyboardInterrupt):
        interleave([Nosy("a", 0, Clock(), [])], [[[{"input_ids": [0]}]]], warmup=1, rounds=9)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_batches_begin_again_when_there_are_too_few_examples() -> None:
    features = [{"input_ids": [i]} for i in range(3)]
    assert [f["input_ids"][0] for f in batch_of(features, 0, 5)] == [0, 1, 2, 0, 1]
    assert [f["input_ids"][0] for f in batch_of(features, 1, 5)] == [2, 0, 1, 2, 0]
