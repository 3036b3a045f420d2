"""Benchmarks name their heads: what a model directory notes, the benchmark's name, leads to the same head."""

from __future__ import annotations

import pytest

from recompress.benchmarks import ALL_BENCHMARKS, get_benchmark
from recompress.errors import InputError
from recompress.models.heads import HEADS, head_of


def test_every_benchmark_has_the_head_that_its_name_leads_to() -> None:
    assert HEADS.keys() == set(ALL_BENCHMARKS)
    for name in ALL_BENCHMARKS:
        assert get_benchmark(name).head is head_of(name)
        assert head_of(name).auto_model().__name__ == head_of(name).auto_class


def test_a_name_that_is_none_gets_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"unknown benchmark 'text-clasification' .* did you mean 'text-classification'"):
        head_of("text-clasification")
