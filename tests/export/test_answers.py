"""A label is the same or another; a number is near or it is not, beside how far the numbers are spread and beside what 32 bits hold of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recompress.benchmarks import get_benchmark
from recompress.errors import IntegrityError
from recompress.export.answers import _check_decision
from recompress.models.checkpoint import Info

NUMBERS, CLOSE = get_benchmark("text-regression"), 1e-4
INFO = Info(benchmark="text-regression", labels=("value",), max_length=8, standard=(1000.0, 2.0))


def checked(mine: float, other: float, info: Info = INFO) -> None:
    _check_decision(NUMBERS, info, {"input_ids": [0]}, np.array([mine], np.float32), np.array([other], np.float32), "text 1", CLOSE)


def test_a_number_may_differ_by_a_little_of_the_spread_and_by_its_last_digits() -> None:
    checked(1000.0, 1000.0 + 0.9 * CLOSE * 2)
    checked(1e6, 1e6 + 4 * 0.0625)
    for mine, other in ((1000.0, 1000.0 + 2 * CLOSE * 2), (1e6, 1e6 + 6 * 0.0625), (0.0, -0.001)):
        with pytest.raises(IntegrityError, match=r"decides text 1 otherwise: \S+ where the model that was judged says"):
            checked(mine, other)


def test_where_nobody_knows_the_spread_it_is_the_number_itself() -> None:
    unknown = replace(INFO, standard=None)
    checked(50.0, 50.0 * (1 + 0.9 * CLOSE), unknown)
    with pytest.raises(IntegrityError, match="decides text 1 otherwise"):
        checked(50.0, 50.0 * (1 + 1.2 * CLOSE), unknown)


def test_another_label_is_another_however_near() -> None:
    benchmark, info = get_benchmark("text-classification"), replace(INFO, benchmark="text-classification", labels=("a", "b"), standard=None)
    with pytest.raises(IntegrityError, match="decides text 1 otherwise: b where the model that was judged says a"):
        _check_decision(benchmark, info, {"input_ids": [0], "units": [0]}, np.array([1.0, 0.99999]), np.array([0.99999, 1.0]), "text 1", CLOSE)
