"""The bounds, against brute force, against scipy, and against what they promise."""

from __future__ import annotations

from itertools import chain, combinations, product
from math import ceil, comb, inf

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from recompress.benchmarks.text_classification import TextClassification
from recompress.gate.statistics import NORMAL, LossEstimate, estimate_loss, holm, loss_of, mcnemar, pair, resample, together
from studies.gate_populations import POPULATIONS, accuracy, f1, texts

Z2 = NORMAL.inv_cdf(0.95) ** 2


def estimate(ours: np.ndarray, theirs: np.ndarray, metric=accuracy, *, draws: int = 1000, seed: int = 0, slices: list[str] | None = None) -> LossEstimate:
    strata = pair(ours, theirs, slices or [""] * len(ours))
    totals = resample(strata, draws=draws, seed=seed)
    return estimate_loss(list(strata.values()), sum(totals.values()), metric)


def right(*values: int) -> np.ndarray:
    return np.array([[value, 1] for value in values])


@st.composite
def pairs(draw: st.DrawFn, least: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Counts of entities (found, predicted, gold) of two models for the same sentences in two slices."""
    n = draw(st.integers(least, 40))
    cell = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
    ours, theirs = (np.array([(a, a + b, a + c) for a, b, c in draw(st.lists(cell, min_size=n, max_size=n))]) for _ in range(2))
    ours[0] = theirs[0] = (2, 3, 3)  # so that F1 exists
    return ours, theirs, draw(st.lists(st.sampled_from(["hau", "swa"]), min_size=n, max_size=n))


def test_draws_follow_the_distribution_of_all_samples_with_replacement() -> None:
    ours, theirs = right(0, 1, 1, 0), right(1, 1, 0, 1)
    every = [loss_of(np.concatenate([ours, theirs], 1)[list(chosen)].sum(0), accuracy) for chosen in product(range(4), repeat=4)]
    drawn = estimate(ours, theirs, draws=40_000).draws
    values, exact = np.unique(np.round(every, 9), return_counts=True)
    shares = np.array([(np.abs(drawn - value) < 1e-6).mean() for value in values])
    assert shares.sum() == pytest.approx(1)
    assert np.abs(shares - exact / len(every)).max() < 0.01


def test_slices_keep_their_numbers_of_examples_in_every_draw() -> None:
    counts = np.concatenate([right(*[1] * 30), right(*[0] * 10)])
    strata = pair(counts, counts, ["swa"] * 30 + ["yor"] * 10)
    totals = resample(strata, draws=50, seed=0)
    assert (totals["swa"] == [30, 30, 30, 30]).all()
    assert (totals["yor"] == [0, 10, 0, 10]).all()


@given(pairs(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_examples_changes_nothing_at_all(both: tuple[np.ndarray, np.ndarray, list[str]], draw) -> None:
    ours, theirs, slices = both
    order = list(range(len(ours)))
    draw.shuffle(order)
    one, other = estimate(ours, theirs, f1, slices=slices), estimate(ours[order], theirs[order], f1, slices=[slices[i] for i in order])
    assert (one.draws == other.draws).all()
    assert one.upper(0.05) == pytest.approx(other.upper(0.05), abs=1e-12)


@given(pairs())
@settings(max_examples=40, deadline=None)
def test_the_bound_lies_above_the_loss_and_falls_with_the_error_allowed(both: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    estimated = estimate(both[0], both[1], f1)
    bounds = [estimated.upper(alpha) for alpha in (0.005, 0.01, 0.025, 0.05, 0.1, 0.3)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] > estimated.loss


@given(pairs(), st.floats(0.001, 0.5))
@settings(max_examples=40, deadline=None)
def test_the_p_value_is_where_the_bound_meets_the_margin(both: tuple[np.ndarray, np.ndarray, list[str]], margin: float) -> None:
    estimated = estimate(both[0], both[1], f1)
    p = estimated.p_value(margin)
    assert 1 / 1001 <= p <= 1
    if p < 0.49:
        assert estimated.upper(p) < margin
    if 1 / 1001 < p < 1:
        assert not estimated.upper(p - 2e-9) < margin


@given(pairs())
@settings(max_examples=40, deadline=None)
def test_the_jackknife_leaves_out_one_example_at_a_time(both: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    ours, theirs, slices = both
    counts = np.concatenate([ours, theirs], 1)
    without = np.array([loss_of(np.delete(counts, i, 0).sum(0), f1) for i in range(len(counts))])
    influence = np.zeros(len(counts))
    for name in set(slices):
        inside = np.array(slices) == name
        influence[inside] = without[inside].mean() - without[inside]
    square = (influence**2).sum()
    estimated = estimate(ours, theirs, f1, slices=slices)
    assert estimated.standard_error == pytest.approx(np.sqrt(square), abs=1e-9, nan_ok=True)
    if square > 1e-9:
        assert estimated.acceleration == pytest.approx((influence**3).sum() / (6 * square**1.5), abs=1e-6)


def test_the_bound_without_its_score_term_is_scipys_bca() -> None:
    ours, theirs = texts(np.random.default_rng(5), 400, 0.03, 0.02)
    estimated = estimate(ours, theirs, draws=40_000)
    ci = bootstrap((theirs[:, 0] - ours[:, 0],), np.mean, method="BCa", confidence_level=0.95, alternative="less", n_resamples=40_000, rng=0, batch=2000)
    assert estimated._quantile(NORMAL.inv_cdf(0.95)) == pytest.approx(ci.confidence_interval.high, abs=0.0026)  # one step of 1/400, and the noise of draws


@given(
    st.lists(st.integers(-20, 20), min_size=19, max_size=200),
    st.integers(-20, 20),
    st.floats(-0.2, 0.2),
    st.sampled_from([0.01, 0.025, 0.05, 0.1, 0.3, 0.45, 0.5]),
    st.sampled_from([10, 400]),
)
@settings(max_examples=300, deadline=None)
def test_the_bound_is_the_formula_at_the_head_of_the_file(draws: list[int], loss: int, acceleration: float, alpha: float, examples: int) -> None:
    """By hand: the order statistic of Efron's eq. 6.6 at k of B + 1, ties halved, and Wilson's term beside it."""
    count, z = len(draws), norm.isf(alpha)
    share = (sum(draw < loss for draw in draws) + sum(draw == loss for draw in draws) / 2) / count
    bias = norm.ppf(min(max(share, 1 / (count + 1)), count / (count + 1)))
    stretch = 1 - acceleration * (bias + z)
    place = norm.cdf(bias + (bias + z) / stretch) * (count + 1) if stretch > 0 else inf
    assume(stretch <= 0 or abs(place - round(place)) > 1e-6)
    quantile = sorted(draws)[ceil(place) - 1] if place <= count else inf
    score = z**2 / (2 * examples)
    estimated = LossEstimate(float(loss), np.sort(np.array(draws, dtype=float)), examples, 1.0, acceleration)
    assert estimated.upper(alpha) == pytest.approx(loss + score + np.hypot(max(quantile - loss, 0), score))


def test_no_p_value_is_smaller_than_the_draws_can_show() -> None:
    estimated = LossEstimate(0.0, np.linspace(-0.01, 0.09, 100), 10**6, 0.02, 0.0)
    assert estimated.p_value(0.5) == 1 / 101


def test_where_the_models_never_differ_one_loss_in_some_hundreds_stays_possible() -> None:
    same = right(*[1] * 150, *[0] * 50)
    estimated = estimate(same, same)
    assert estimated.loss == 0
    assert estimated.standard_error == 0
    assert estimated.upper(0.05) == pytest.approx(Z2 / 200)
    assert estimated.smallest_detectable(0.05, 0.8) == pytest.approx(Z2 / 200)


@given(st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_where_examples_are_only_lost_the_bound_is_wilsons_or_a_little_more(lost: int) -> None:
    n, z = 2000, NORMAL.inv_cdf(0.95)
    ours, theirs = right(*[0] * lost, *[1] * (n - lost)), right(*[1] * n)
    share = lost / n
    wilson = (share + z * z / (2 * n) + z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    assert -0.5 < (estimate(ours, theirs, draws=4000).upper(0.05) - wilson) * n < 3  # in examples


@given(pairs())
@settings(max_examples=20, deadline=None)
def test_swapped_models_have_the_opposite_loss(both: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    assert estimate(both[0], both[1], f1, draws=1).loss == pytest.approx(-estimate(both[1], both[0], f1, draws=1).loss)


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    ours, theirs = texts(np.random.default_rng(0), 300, 0.02, 0.02)
    strata = pair(ours, theirs, [""] * 300)
    long, short = resample(strata, draws=2500, seed=7)[""], resample(strata, draws=1000, seed=7)[""]
    assert (long[:1000] == short).all()
    assert (long == resample(strata, draws=2500, seed=7)[""]).all()
    assert (long != resample(strata, draws=2500, seed=8)[""]).any()
    assert (len(long), len(short)) == (2500, 1000)


def test_the_order_in_which_slices_are_named_changes_no_draw() -> None:
    counts = right(0, 1, 1, 0, 1, 1)
    strata = pair(counts, counts[::-1], ["swa"] * 3 + ["hau"] * 3)
    one, other = resample(strata, draws=20, seed=0), resample(dict(reversed(strata.items())), draws=20, seed=0)
    assert all((one[name] == other[name]).all() for name in strata)


def test_a_draw_without_anything_to_find_counts_as_infinite_loss() -> None:
    counts = np.array([[1, 1, 1]] + [[0, 0, 0]] * 9)
    estimated = estimate(counts, counts, f1)
    assert estimated.undefined == pytest.approx(0.9**10, abs=0.05)
    assert estimated.upper(0.05) == np.inf
    assert estimated.p_value(0.9) == 1


def test_a_metric_that_is_undefined_bounds_nothing() -> None:
    empty = np.zeros((20, 3), dtype=int)
    estimated = estimate(empty, empty, f1)
    assert np.isnan(estimated.loss)
    assert not estimated.upper(0.05) < 1
    assert not estimated.smallest_detectable(0.05, 0.8) <= 1


def test_a_pair_of_different_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        pair(right(1, 1), right(1), ["", ""])
    with pytest.raises(ValueError, match="equal shapes"):
        pair(right(1, 1), right(1, 1), [""])
    with pytest.raises(ValueError, match="equal shapes"):
        pair(right(1, 1), np.ones((2, 3)), ["", ""])


@example({"a": 0.03, "b": 0.04}, 0.05)  # the second would pass alone, but not behind one that is kept
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=5), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_is_the_closed_test_of_bonferroni(p_values: dict[str, float], alpha: float) -> None:
    """A hypothesis is rejected when every set of hypotheses that holds it is, each by its smallest p-value times its size."""
    names = list(p_values)
    sets = list(chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1)))
    steps = holm(p_values, alpha)
    for name in names:
        adjusted = max(min(1.0, min(p_values[other] for other in group) * len(group)) for group in sets if name in group)
        assert steps[name].adjusted == pytest.approx(adjusted)
        assert steps[name].rejected == (steps[name].adjusted <= alpha)
        if not steps[name].rejected:
            assert p_values[name] > steps[name].alpha * (1 - 1e-9)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm({}, 0.05) == {}


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_sign_test(lost: int, gained: int) -> None:
    n = lost + gained
    tail = sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n if n else 1.0
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * tail))


SIMULATED = 300


def share_that_passes(kind: str, n: int, margin: float, churn: float, true_loss: float, *, seed: int = 0) -> float:
    draw, metric, _ = POPULATIONS[kind]
    rng = np.random.default_rng(seed)
    return float(np.mean([estimate(*draw(rng, n, true_loss, churn), metric, draws=500, seed=i).upper(0.05) < margin for i in range(SIMULATED)]))


@pytest.mark.parametrize("kind", POPULATIONS)
@pytest.mark.parametrize(("n", "margin", "churn"), [(200, 0.02, 0.0), (500, 0.02, 0.01)])
def test_a_candidate_exactly_at_the_margin_passes_in_at_most_one_sample_of_twenty(kind: str, n: int, margin: float, churn: float) -> None:
    noise = 2.5 * np.sqrt(0.05 * 0.95 / SIMULATED)
    assert share_that_passes(kind, n, margin, churn, margin) <= 0.05 + noise


def test_a_plain_percentile_bound_would_let_too_many_through() -> None:
    """Why the bound is what it is: nothing lost by chance has no spread, and a percentile calls it certain."""
    rng, passes = np.random.default_rng(0), 0
    for i in range(SIMULATED):
        estimated = estimate(*texts(rng, 200, 0.01, 0.0), draws=500, seed=i)
        passes += estimated.draws[474] < 0.01
    assert passes / SIMULATED > 0.09


@pytest.mark.parametrize("kind", ["accuracy", "F1"])
def test_a_good_candidate_passes_where_the_sample_is_called_large_enough(kind: str) -> None:
    draw, metric, _ = POPULATIONS[kind]
    detectable = estimate(*draw(np.random.default_rng(1), 1000, 0.0, 0.02), metric).smallest_detectable(0.05, 0.8)
    assert 0.7 < share_that_passes(kind, 1000, detectable, 0.02, 0.0) < 0.92


def test_a_thousand_classes_take_less_memory_than_their_counts_in_full() -> None:
    """6,000 counts for each of 2,000 draws, of which accuracy needs two: they are kept in half the bytes, and looked at in parts."""
    import tracemalloc

    classes, draws = 1000, 4000
    labels = tuple(f"c{i}" for i in range(classes))
    rng = np.random.default_rng(0)
    gold = rng.integers(0, classes, 300)
    answers = [np.where(rng.random(300) < 0.8, gold, rng.integers(0, classes, 300)) for _ in range(2)]
    benchmark = TextClassification()
    references = [(labels[i],) for i in gold]
    ours, theirs = (benchmark.counts(references, [(labels[i],) for i in given], labels) for given in answers)

    def metric(totals: np.ndarray) -> np.ndarray:
        return np.asarray(benchmark.metrics(totals, labels)["accuracy"])

    strata = pair(ours, theirs, ["all"] * 300)
    tracemalloc.start()
    estimated = estimate_loss([*strata.values()], together(resample(strata, draws=draws, seed=0)), metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * draws * 6 * classes * 8
    few = [np.stack([(given == gold).astype(float), np.ones(300)], axis=1) for given in answers]  # the same, told by two counts
    small = pair(few[0], few[1], ["all"] * 300)
    same = estimate_loss([*small.values()], together(resample(small, draws=draws, seed=1)), lambda totals: totals[..., 0] / totals[..., 1])
    assert estimated.loss == pytest.approx(same.loss)
    assert estimated.upper(0.05) == pytest.approx(same.upper(0.05), abs=0.006)
