"""Bounds over rounds: exact against the binomial law, right about the median as often as they say, and no verdict where the machine says more than the model."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from recompress.gate.rounds import check_rounds, median_bounds, rank, rounds_needed
from recompress.policy import Limits
from recompress.records import Evaluation, Finding
from tests.gate.cases import CANDIDATE, DATASET, IDLE, MACHINE


def judged(values: list[float], *, worked: list[float] | None = None, limit: float = 1.5, alpha: float = 0.05, **load: float) -> Finding:
    evaluation = Evaluation(
        model="small", model_sha256=CANDIDATE, dataset_sha256=DATASET, metrics={}, slices={}, machine=MACHINE, load=IDLE | load,
        rounds={"latency_ratio_runtime": tuple(values), "processor_ratio_runtime": tuple(worked or values)},
    )  # fmt: skip
    [finding] = check_rounds(Limits(times_faster=limit), evaluation, "times_faster", alpha=alpha)
    return finding


def test_the_rank_is_the_binomial_quantile() -> None:
    for count, alpha in product(range(1, 40), (0.1, 0.05, 0.05 / 3, 0.01, 0.001)):
        k = rank(count, alpha)
        assert binom.cdf(k - 1, count, 0.5) <= alpha < binom.cdf(k, count, 0.5)
    assert [rank(n, 0.05) for n in (4, 5, 7, 8, 10, 11)] == [0, 1, 1, 2, 2, 3]


def test_with_the_fewest_rounds_there_is_a_bound_and_with_one_less_there_is_none() -> None:
    for alpha in (0.1, 0.05, 0.05 / 3, 0.01, 0.001, 0.5**6):
        least = rounds_needed(alpha)
        assert rank(least, alpha) == 1
        assert rank(least - 1, alpha) == 0
        assert median_bounds([1.0] * (least - 1), alpha) == (float("-inf"), float("inf"))


@pytest.mark.parametrize("shape", ["normal", "heavy", "skewed"])
def test_the_bound_is_wrong_about_the_median_no_oftener_than_it_says(shape: str) -> None:
    rng = np.random.default_rng(3)
    draws = {"normal": rng.normal(size=(4000, 8)), "heavy": rng.standard_cauchy((4000, 8)), "skewed": np.expm1(2 * rng.normal(size=(4000, 8)))}[shape]
    for alpha in (0.05, 0.05 / 3):
        bounds = np.array([median_bounds(row.tolist(), alpha) for row in draws])  # the true median is 0
        exact = binom.cdf(rank(8, alpha) - 1, 8, 0.5)
        assert (bounds[:, 0] > 0).mean() <= exact + 3 * (exact / 4000) ** 0.5 <= alpha + 0.011
        assert (bounds[:, 1] < 0).mean() <= exact + 3 * (exact / 4000) ** 0.5


def test_a_candidate_exactly_at_the_limit_passes_by_luck_in_five_of_a_hundred_at_most_whatever_the_machine_does() -> None:
    """Quiet, noisy, busy, and drifting: the model is as fast as the limit in the median, and the noise is the machine's."""
    rng, many = np.random.default_rng(5), 1500
    for noise, load, drift in ((0.01, {}, 0.0), (0.3, {}, 0.0), (0.3, {"processor_share": 0.5}, 0.0), (0.05, {"steal_share": 0.2}, 0.3)):
        rows = 1.5 * np.exp(noise * rng.standard_t(3, size=(many, 8)) + drift * np.linspace(-1, 1, 8))
        assert sum(judged(row.tolist(), **load).passed for row in rows) / many <= 0.05


def test_far_from_the_limit_a_busy_machine_decides_all_the_same() -> None:
    rng = np.random.default_rng(6)
    rows = np.exp(0.15 * rng.normal(size=(300, 8)))
    assert all(judged((3 * row).tolist(), processor_share=0.5).passed for row in rows)
    assert all(judged((0.7 * row).tolist(), processor_share=0.5).reason == "latency-too-high" for row in rows)


def test_what_is_said_names_the_bound_how_sure_it_is_and_the_way_out() -> None:
    steady = judged([3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0, 3.0])
    assert steady.passed
    assert (steady.measured, steady.limit) == (2.95, 1.5)
    assert steady.detail == "3.00 times as fast as the baseline in full precision in the same runtime (8 rounds), at least 2.95 (95 % sure), 1.50 asked for"
    busy = judged([1.1, 2.9] * 4)
    assert busy.reason == "machine-too-busy"
    assert busy.detail.endswith("the machine was too busy to tell: the bounds lie 90 % apart; run again when nothing else runs")
    waiting = judged([1.4, *[3.0] * 14, 3.0], processor_share=0.6)
    assert "(in every round, because the machine was busy)" in waiting.detail
    assert "had a processor for 60 % of its time, 90 % are needed" in waiting.detail
    near = judged([1.5, 1.49, 1.51, 1.5, 1.49, 1.52, 1.5, 1.5])
    assert near.reason == "latency-too-high"
    assert near.detail.endswith("too close to the limit to be sure")


def test_a_smaller_alpha_asks_for_a_further_bound() -> None:
    values = [1.49, 1.6, 1.7, 1.8, 1.55, 1.65, 1.75, 1.6]
    assert judged(values, alpha=0.05).passed
    assert not judged(values, alpha=0.05 / 3).passed
    assert judged(values, alpha=0.001).reason == "too-few-rounds"


def test_passing_time_flatters_a_small_model_on_a_busy_machine_and_is_not_believed_there() -> None:
    """Figures as they were measured, int8 beside fp32 on two cores with some 16 busy processes."""
    flattered, worked = [18.05, 49.31, 56.03, 30.37, 56.7, 39.98, 65.15, 63.19], [5.23, 5.21, 5.34, 5.54, 5.5, 5.51, 5.52, 5.52]
    assert judged(flattered, worked=worked, limit=5.0, processor_share=0.08).passed
    assert judged(flattered, worked=worked, limit=10.0, processor_share=0.08).reason == "machine-too-busy"
    assert judged(flattered, worked=worked, limit=70.0, processor_share=0.08).reason == "latency-too-high"
    assert judged(flattered, worked=worked, limit=10.0).reason != "latency-too-high", "on an idle machine passing time is what counts"


def test_how_fast_a_model_writes_is_limited_beside_the_baseline_that_the_policy_names_and_caches_are_nothing_to_it() -> None:
    names = ("decode_ratio", "decode_ratio_runtime", "decode_processor_ratio", "decode_processor_ratio_runtime", "latency_ratio_runtime")
    for limits, key in (
        (Limits(times_faster_writing=2.0), "decode_ratio_runtime"),
        (Limits(times_faster_writing=2.0, against="torch"), "decode_ratio"),
        (Limits(times_faster_writing=2.0, times_faster=1.0, caches="cold"), "decode_ratio_runtime"),
    ):
        for good, other in ((3.0, 1.0), (1.0, 3.0)):
            rounds = {name: (good if name == key else other,) * 8 for name in names}
            evaluation = Evaluation(
                model="small", model_sha256=CANDIDATE, dataset_sha256=DATASET, metrics={}, slices={}, machine=MACHINE, load=IDLE, rounds=rounds
            )
            [finding] = check_rounds(limits, evaluation, "times_faster_writing", alpha=0.05)
            assert finding.passed == (good == 3.0)
            assert finding.detail.startswith(f"{good:.2f} times as fast at writing as the baseline in")


KEYS = {
    ("runtime", "hot"): "latency_ratio_runtime",
    ("torch", "hot"): "latency_ratio",
    ("onnx", "hot"): "latency_ratio_onnx",
    ("runtime", "cold"): "cold_latency_ratio_runtime",
    ("torch", "cold"): "cold_latency_ratio",
    ("onnx", "cold"): "cold_latency_ratio_onnx",
}


@pytest.mark.parametrize("against", ["runtime", "torch", "onnx"])
@pytest.mark.parametrize("caches", ["hot", "cold"])
def test_faster_than_what_is_what_the_policy_means_and_nothing_else(against: Any, caches: Any) -> None:
    """Only the ratio that is meant passes the limit; on a busy machine its time of the processor counts, and where it was not measured nothing does."""

    def found(key: str, good: float, other: float, share: float = 1.0) -> Finding:
        names = set(KEYS.values()) | {name.replace("latency", "processor") for name in KEYS.values()}
        rounds = {name: (good if name == key else other,) * 8 for name in names}
        evaluation = Evaluation(
            model="small", model_sha256=CANDIDATE, dataset_sha256=DATASET, metrics={}, slices={}, machine=MACHINE, load=IDLE | {"processor_share": share}, rounds=rounds
        )  # fmt: skip
        [finding] = check_rounds(Limits(times_faster=2.0, against=against, caches=caches), evaluation, "times_faster", alpha=0.05)
        return finding

    key = KEYS[against, caches]
    assert found(key, 3.0, 1.0).passed
    assert found(key, 1.0, 3.0).reason == "latency-too-high"
    assert not found(key.replace("latency", "processor"), 1.0, 3.0, share=0.5).passed
    assert ("caches cold" in found(key, 3.0, 1.0).detail) == (caches == "cold")
    assert {"runtime": "same runtime", "torch": "in torch", "onnx": "ONNX Runtime"}[against] in found(key, 3.0, 1.0).detail
    gone = Evaluation(model="small", model_sha256=CANDIDATE, dataset_sha256=DATASET, metrics={}, slices={}, machine=MACHINE, load=IDLE, rounds={other: (3.0,) * 8 for other in KEYS.values() if other != key})  # fmt: skip
    [finding] = check_rounds(Limits(times_faster=2.0, against=against, caches=caches), gone, "times_faster", alpha=0.05)
    assert finding.reason == "rounds-missing"
