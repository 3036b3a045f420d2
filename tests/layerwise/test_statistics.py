"""Statistics of what flows into a layer, against sums by hand over rows that come in two parts."""

from __future__ import annotations

import pytest
import torch

from recompress.layerwise.statistics import DTYPES, Statistics

ROWS = torch.tensor([[1.0, -2.0, 0.0], [-3.0, 0.5, 4.0], [2.0, -1.0, -5.0], [0.5, 0.5, 0.5]])


def test_all_kinds_are_those_of_all_rows() -> None:
    statistics = Statistics(3, DTYPES.keys(), torch.device("cpu"))
    statistics.add(ROWS[:3])
    statistics.add(ROWS[3:])
    assert statistics.tokens == 4
    assert torch.equal(statistics["absolute"], ROWS.abs().sum(0).double())
    assert torch.equal(statistics["squares"], ROWS.square().sum(0).double())
    assert torch.equal(statistics["largest"], torch.tensor([3.0, 2.0, 5.0]))
    assert torch.equal(statistics["hessian"], ROWS.T @ ROWS)
    assert statistics.are_finite


@pytest.mark.parametrize("wanted", [("absolute", "hessian"), ("hessian", "absolute")])
def test_one_kind_that_is_not_finite_is_enough(wanted: tuple[str, str]) -> None:
    statistics = Statistics(2, wanted, torch.device("cpu"))  # type: ignore[arg-type]
    statistics.add(torch.tensor([[1e30, 1.0]]))
    assert not statistics.are_finite
