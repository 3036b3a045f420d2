"""Numbers: sums of whole numbers that give what scipy gives, whatever the data's unit is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from recompress.benchmarks import Example, get_benchmark
from recompress.benchmarks.text_regression import FAR, number_of
from recompress.errors import DataRefused
from tests.tiny import tiny_tokenizer

BENCHMARK = get_benchmark("text-regression")
LABELS = ("value",)
CLOSE = 2e-4
"""What rounding to an eight-thousandth of the spread may cost."""


def rows(values: np.ndarray) -> list[tuple[str, ...]]:
    return [(repr(float(value)),) for value in values]


def metrics_of(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    return BENCHMARK.metrics(BENCHMARK.counts(rows(y), rows(x), LABELS).sum(axis=0), LABELS)


@given(st.integers(0, 2**31), st.integers(3, 60), st.sampled_from([1e-9, 1e-3, 1.0, 1e4, 1e12]), st.sampled_from([0.0, -7.0, 1e3]))
def test_equals_scipy_in_every_unit(seed: int, count: int, unit: float, middle: float) -> None:
    draw = np.random.default_rng(seed)
    y = draw.normal(size=count)
    x = y + draw.normal(size=count) * draw.uniform(0.05, 2)
    x, y = (np.round(values, 2) * unit + middle * unit for values in (x, y))  # with ties
    if np.ptp(y) == 0 or np.ptp(x) == 0:
        return
    ours = metrics_of(x, y)
    assert ours["pearson"] == pytest.approx(pearsonr(x, y)[0], abs=CLOSE)
    assert ours["spearman"] == pytest.approx(spearmanr(x, y)[0], abs=1e-9)
    assert ours["rmse"] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), rel=1e-3, abs=1e-3 * y.std())
    assert ours["negative_rmse"] == -ours["rmse"]


def test_counts_are_whole_and_never_negative_and_add_up_over_any_parts() -> None:
    draw = np.random.default_rng(1)
    y, x = draw.normal(size=50), draw.normal(size=50)
    counts = BENCHMARK.counts(rows(y), rows(x), LABELS)
    assert counts.dtype == np.int64
    assert counts.min() >= 0
    assert len(BENCHMARK.count_names(LABELS)) == counts.shape[1]
    weights = draw.multinomial(50, [1 / 50] * 50, size=4)
    together = BENCHMARK.metrics(weights @ counts, LABELS)
    for i, times in enumerate(weights):
        x_drawn, y_drawn = np.repeat(x, times), np.repeat(y, times)
        assert together["pearson"][i] == pytest.approx(pearsonr(x_drawn, y_drawn)[0], abs=CLOSE)
        assert together["rmse"][i] == pytest.approx(np.sqrt(np.mean((x_drawn - y_drawn) ** 2)), rel=1e-3)
    half = BENCHMARK.metrics(counts[:25].sum(axis=0), LABELS)
    assert half["pearson"] == pytest.approx(pearsonr(x[:25], y[:25])[0], abs=CLOSE)


def test_the_same_numbers_give_the_same_steps_for_every_model() -> None:
    """What x a model gives changes nothing about how y is counted, so that two models can be compared text by text."""
    y = np.array([1.0, 2.0, 4.0])
    names = BENCHMARK.count_names(LABELS)
    of_y = [i for i, name in enumerate(names) if name in ("texts", "exponent", "y.value", "yy.value", "y.rank", "yy.rank")]
    one, other = (BENCHMARK.counts(rows(y), rows(x), LABELS) for x in (y, np.array([1e6, -1e6, 0.0])))
    np.testing.assert_array_equal(one[:, of_y], other[:, of_y])
    assert other[:, names.index("x.value")].tolist()[:2] == [2 * FAR, 0], "what lies far away counts as lying at the edge"


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e9])
def test_answers_that_are_all_the_same_have_no_correlation_and_that_is_no_zero(constant: float) -> None:
    y = np.arange(20_000) % 7 * 1.0
    ours = metrics_of(np.full(len(y), constant), y)
    assert math.isnan(ours["pearson"])
    assert math.isnan(ours["spearman"])
    assert ours["rmse"] > 0
    assert math.isnan(metrics_of(y, np.full(len(y), constant))["pearson"])


def test_a_shift_that_correlation_does_not_see_is_seen_by_rmse() -> None:
    y = np.array([1.0, 2.0, 3.0, 5.0])
    ours = metrics_of(2 * y + 10, y)
    assert ours["pearson"] == pytest.approx(1)
    assert ours["rmse"] == pytest.approx(np.sqrt(np.mean((y + 10) ** 2)), rel=1e-3)


def test_numbers_are_read_and_written() -> None:
    said, unsaid = BENCHMARK.encode(tiny_tokenizer(), [Example(("kula",), ("1.50",)), Example(("kula",))], LABELS, 32)
    assert said["labels"] == [[1.5]]
    assert math.isnan(unsaid["labels"][0][0])
    assert BENCHMARK.decide(np.array([[np.float32(0.1)]]), LABELS) == ("0.100000001",)
    for wrong in (("many",), ("inf",), ("nan",), ("1", "2")):
        with pytest.raises(DataRefused, match="a number is expected for each text"):
            number_of(wrong)
    with pytest.raises(DataRefused, match="a number is expected for each text, got none"):
        BENCHMARK.counts([()], [("1",)], LABELS)
