"""Ranks are the largest that fit, found again by counting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.errors import InputError
from recompress.methods.low_rank.rank import Rank, check_rank, is_smaller, numbers_with, rank_by_energy, rank_by_share, rank_for, share_for, tensor_bytes
from recompress.models.architecture import encoder_linears, shape_of
from tests.six import checkpoint_of


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), share=st.floats(0.01, 0.99))
def test_the_rank_of_a_share_is_the_largest_that_fits(rows: int, columns: int, share: float) -> None:
    fits = [rank for rank in range(1, 41) if rank * (rows + columns) <= share * rows * columns + 1e-6]
    assert rank_by_share((rows, columns), share) == max(fits, default=1)


@settings(deadline=None)
@given(values=st.lists(st.floats(0.01, 9), min_size=1, max_size=9), energy=st.floats(0.01, 1))
def test_the_rank_of_an_energy_is_the_smallest_that_keeps_it(values: list[float], energy: float) -> None:
    singular = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    squares = singular.square()
    energies = [float(squares[:rank].sum() / squares.sum()) for rank in range(1, len(values) + 1)]
    rank = rank_by_energy(singular, energy)
    assert energies[rank - 1] >= energy - 1e-9
    assert rank == 1 or energies[rank - 2] < energy + 1e-9


def test_factors_that_are_not_smaller_leave_the_matrix_whole() -> None:
    assert is_smaller((8, 8), 3)
    assert not is_smaller((8, 8), 4)
    assert (numbers_with((8, 8), 3), numbers_with((8, 8), 4)) == (48, 64)
    assert rank_for(Rank(energy=1.0), None, (8, 8), torch.ones(8)) is None
    assert rank_for(Rank(parameters=0.5), 0.5, (2, 1), torch.ones(1)) is None
    assert rank_for(Rank(parameters=0.5), 0.5, (8, 8), torch.ones(8)) == 2


@pytest.mark.parametrize("share", [0.2, 0.5, 0.77])
def test_bytes_are_met_and_one_rank_more_would_exceed_them(share: float) -> None:
    network = checkpoint_of("llama").torch_network
    shapes = [shape_of(linear) for _, linear in encoder_linears(network)]
    rest = tensor_bytes(network) - 4 * sum(rows * columns for rows, columns in shapes)
    budget = rest + int(share * (tensor_bytes(network) - rest))
    largest = share_for(Rank(size_bytes=budget), network, shapes)
    assert largest is not None

    def size(share: float) -> int:
        return rest + 4 * sum(numbers_with(shape, rank_by_share(shape, share)) for shape in shapes)

    assert size(largest) <= budget < size(largest + 1e-6)


def test_what_is_refused() -> None:
    assert (Rank().parameters, Rank(energy=0.5).parameters) == (0.5, None)
    for dials in ({"parameters": None}, {"parameters": 0.5, "energy": 0.5}, {"energy": 0.5, "size_bytes": 9}):
        with pytest.raises(InputError, match="exactly one of parameters, energy and size_bytes, got"):
            check_rank(Rank(**dials))
    network = checkpoint_of("bert").torch_network
    shapes = [shape_of(linear) for _, linear in encoder_linears(network)]
    with pytest.raises(InputError, match=r"size_bytes 99,999,999 is no less than the .* bytes that the model has already"):
        share_for(Rank(size_bytes=99_999_999), network, shapes)
    with pytest.raises(InputError, match=r"size_bytes 9 cannot be reached: factors of rank 1 leave .* bytes"):
        share_for(Rank(size_bytes=9), network, shapes)
