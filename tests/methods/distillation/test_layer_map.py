"""Who looks at whom, by rule and by list, and layers that are not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recompress.errors import InputError
from recompress.methods.distillation.layer_map import partners


@pytest.mark.parametrize(
    "rule, student, teacher, expected",
    [
        ("uniform", 4, 12, [3, 6, 9, 12]),
        ("uniform", 6, 12, [2, 4, 6, 8, 10, 12]),
        ("uniform", 4, 6, [1, 3, 4, 6]),
        ("uniform", 3, 3, [1, 2, 3]),
        ("uniform", 4, 2, [1, 1, 1, 2]),
        ("top", 4, 12, [9, 10, 11, 12]),
        ("bottom", 4, 12, [1, 2, 3, 4]),
        ("last", 4, 12, [0, 0, 0, 12]),
        ((2, 0, 5), 3, 5, [2, 0, 5]),
    ],
)
def test_as_the_papers_have_it(rule: str | tuple[int, ...], student: int, teacher: int, expected: list[int]) -> None:
    pairs = partners(rule, student, teacher)
    assert [pairs.get(m, -1) + 1 for m in range(student)] == expected


@given(st.sampled_from(["uniform", "top", "bottom", "last"]), st.integers(1, 24), st.integers(0, 24))
def test_rules_name_layers_that_are_there_in_order(rule: str, student: int, more: int) -> None:
    pairs = partners(rule, student, student + more)
    assert set(pairs) <= set(range(student))
    assert set(pairs.values()) <= set(range(student + more))
    assert list(pairs.values()) == sorted(set(pairs.values())), "with a teacher that is at least as deep, no layer is looked at twice"
    if rule != "bottom":
        assert pairs[student - 1] == student + more - 1, "the last looks at the last"


@pytest.mark.parametrize(
    "rule, student, teacher, reason",
    [
        ((1, 7), 2, 6, "names layer 7 of the teacher, which has 6"),
        ((1, 2, 3), 2, 6, "names 3 layers of the teacher, but the student has 2"),
        ("top", 3, 2, "the student's 3 layers .* which has 2; take uniform"),
        ("bottom", 3, 2, "take uniform"),
    ],
)
def test_layers_that_are_not_there_are_refused(rule: str | tuple[int, ...], student: int, teacher: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        partners(rule, student, teacher)
