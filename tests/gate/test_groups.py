"""Groups of examples: drawn, left out and counted as wholes, against brute force, against a sample of their sums, and at the margin."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.gate.comparisons import compare
from recompress.gate.statistics import NORMAL, _merged, estimate_loss, joined, loss_of, pair, resample, worth_of
from studies.gate_groups import clustered, false_passes
from studies.gate_populations import accuracy
from tests.gate.cases import COUNT, expected, measured, policy, scores, verdict

ROLES = ("candidate", "baseline", "champion", "accepted_baseline")


def rows(*values: int) -> np.ndarray:
    return np.array([[value, 1] for value in values])


def test_draws_are_all_samples_of_groups_with_replacement() -> None:
    ours, theirs, groups = rows(0, 1, 1, 0, 1, 1), rows(1, 1, 0, 1, 1, 0), [7, 7, 9, 9, 9, 4]
    sums = np.array([np.concatenate([ours, theirs], 1)[[g == name for g in groups]].sum(0) for name in (4, 7, 9)])
    every = [loss_of(sums[list(chosen)].sum(0), accuracy) for chosen in product(range(3), repeat=3)]
    drawn = loss_of(resample(pair(ours, theirs, [""] * 6, groups), draws=40_000, seed=0)[""], accuracy)
    values, exact = np.unique(np.round(every, 9), return_counts=True)
    shares = np.array([(np.abs(drawn - value) < 1e-6).mean() for value in values])
    assert shares.sum() == pytest.approx(1)
    assert np.abs(shares - exact / len(every)).max() < 0.01


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 5), st.sampled_from("ab")), min_size=4, max_size=30), st.randoms())
@settings(max_examples=40, deadline=None)
def test_neither_order_nor_numbers_of_groups_matter(sample: list[tuple[int, int, int, str]], draw) -> None:
    def draws(sample: list[tuple[int, int, int, str]], names: list[int]) -> np.ndarray:
        ours, theirs, groups, slices = zip(*sample, strict=True)
        return sum(resample(pair(rows(*ours), rows(*theirs), slices, [names[g] for g in groups]), draws=50, seed=1).values())

    other = sample[:]
    draw.shuffle(other)
    assert (draws(sample, [*range(6)]) == draws(other, [40, 10, 50, 30, 20, 60])).all()


def test_groups_of_one_change_nothing_but_what_is_said() -> None:
    plain = verdict()
    named = verdict(**{role: replace(measured_of(role), groups=range(COUNT)) for role in ROLES}, expected=expected(policy(), groups=COUNT))
    assert named.passed
    assert [loss.upper for loss in named.losses] == [loss.upper for loss in plain.losses]
    assert {loss.worth for loss in named.losses} == {400.0, 800.0}
    assert plain.losses[0].worth is None
    assert plain.pairing_sha256 != named.pairing_sha256
    assert not {"groups", "worth"} & plain.losses[0].as_json().keys()  # so that verdicts from before keep their digests


def measured_of(role: str):
    from tests.gate.cases import case

    return case()[role]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 2)), min_size=1, max_size=30))
def test_equal_rows_are_merged_as_numpy_does_it(rows: list[tuple[int, int, float]]) -> None:
    unique, times = np.unique(np.array(rows), axis=0, return_counts=True)
    ours, ours_times = _merged(np.array(rows))
    assert (ours == unique).all()
    assert (ours_times == times).all()


def test_copies_of_every_example_tell_nothing_new() -> None:
    """Each example four times in a group of its own gives the very bound of each example once."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(300) < 0.8, rng.random(300) < 0.82
    once = pair(rows(*ours), rows(*theirs), [""] * 300, range(300))
    four = pair(rows(*np.repeat(ours, 4)), rows(*np.repeat(theirs, 4)), [""] * 1200, np.repeat(range(300), 4))
    one, other = (estimate_loss(list(strata.values()), resample(strata, draws=2000, seed=0)[""], accuracy) for strata in (once, four))
    assert other.upper(0.05) == pytest.approx(one.upper(0.05), abs=1e-12)
    assert other.smallest_detectable(0.05, 0.8) == pytest.approx(one.smallest_detectable(0.05, 0.8), abs=1e-12)
    assert (one.worth, other.worth, other.examples, other.groups) == (300, 300, 1200, 300)


def test_no_loss_in_n_groups_leaves_as_much_open_as_none_in_n_examples() -> None:
    strata = pair(rows(*[1] * 800), rows(*[1] * 800), [""] * 800, [i // 8 for i in range(800)])
    estimate = estimate_loss(list(strata.values()), resample(strata, draws=1000, seed=0)[""], accuracy)
    assert estimate.upper(0.05) == pytest.approx(NORMAL.inv_cdf(0.95) ** 2 / 100)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_unequal_groups_are_worth_fewer(sizes: list[int]) -> None:
    groups = np.repeat(range(len(sizes)), sizes)
    strata = pair(rows(*[1] * sum(sizes)), rows(*[1] * sum(sizes)), [""] * sum(sizes), groups)
    worth = worth_of(list(strata.values()))
    assert worth == pytest.approx(sum(sizes) ** 2 / sum(size**2 for size in sizes))
    assert 1 <= worth <= len(sizes) + 1e-9


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 6)), min_size=1, max_size=12))
def test_slices_are_joined_when_a_way_of_groups_leads_from_one_to_the_other(pairs: list[tuple[str, int]]) -> None:
    slices, groups = [name for name, _ in pairs], [group for _, group in pairs]
    reach = {name: {name} for name in slices}
    for _ in pairs:  # as often as there could be links
        for name, group in pairs:
            reach[name] |= {s for other, g in pairs if g == group for s in reach[other]}
    assert joined(slices, groups) == ["+".join(sorted(reach[name])) for name in slices]
    assert joined(slices, None) == slices


def test_a_group_that_spans_slices_is_drawn_whole() -> None:
    """Two slices with the same documents: the whole split is as uncertain as its documents are, not as two independent halves."""
    rng = np.random.default_rng(1)
    lost = np.tile(rng.random(400) < 0.1, 2)
    rules = policy(baseline={"margin": 0.5, "slices": {"hau": 0.5, "swa": 0.5}})
    ours = replace(measured("c", "c" * 64, set(np.flatnonzero(lost))), groups=[*range(400)] * 2)
    theirs = replace(measured("b", "b" * 64, set()), groups=[*range(400)] * 2)
    whole, hau, swa = compare(rules, scores, ours, theirs, "baseline", 0.05)
    assert whole.upper - whole.loss == pytest.approx(hau.upper - hau.loss, rel=0.1)
    apart = [replace(model, groups=range(800)) for model in (ours, theirs)]
    assert compare(rules, scores, *apart, "baseline", 0.05)[0].upper < whole.upper - 0.004
    assert (whole.groups, hau.groups, swa.groups) == (400, 400, 400)
    assert whole.mcnemar_p is None


@pytest.mark.parametrize("size", [1, 10])
def test_at_the_margin_few_pass_where_groups_are_named_and_many_where_they_are_not(size: int) -> None:
    shares = false_passes(clustered, examples=1000, size=size, margin=0.08, repeats=300, seed=3)
    assert shares["named"] <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)
    assert (shares["not named"] > 0.15) == (size == 10)
