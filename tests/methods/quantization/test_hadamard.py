"""Matrices that mix evenly: of one size of entry, at right angles, of every size that a width has; and the signs stand where they decide something."""

from __future__ import annotations

import pytest
import torch

from recompress.methods.quantization.hadamard import hadamard, paley, random_rotation, rotation


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_of_paley_by_hand() -> None:
    assert paley(4) is not None
    assert paley(4).tolist() == [[1, 1, 1, 1], [-1, 1, -1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1]]  # type: ignore[union-attr]  # 1 is a square modulo 3, 2 is none


def test_the_second_of_paley_by_hand() -> None:
    squares = {1, 4, 9, 3, 12, 10}  # modulo 13
    small = [[0] + [1] * 13] + [[1] + [0 if i == j else 1 if (i - j) % 13 in squares else -1 for j in range(13)] for i in range(13)]
    whole = [[0.0] * 28 for _ in range(28)]
    for i in range(14):
        for j in range(14):
            for a in range(2):
                for b in range(2):
                    whole[2 * i + a][2 * j + b] = small[i][j] * ((1, 1), (1, -1))[a][b] + (i == j) * ((1, -1), (-1, -1))[a][b]
    assert paley(28) is not None
    assert paley(28).tolist() == whole  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 28, 36, 40, 60, 64, 76, 108, 148, 576, 960])
def test_rows_of_one_size_of_entry_at_right_angles(size: int) -> None:
    matrix = hadamard(size)
    assert matrix is not None
    assert bool((matrix.abs() == 1).all())
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [3, 6, 10, 15, 50, 52, 92])
def test_there_is_none_of_other_sizes(size: int) -> None:
    assert hadamard(size) is None


@pytest.mark.parametrize("size", [1, 2, 3, 6, 15, 32, 36, 50, 92, 576])
def test_a_rotation_of_every_width(size: int) -> None:
    turn = rotation(size, drawn())
    torch.testing.assert_close(turn @ turn.T, torch.eye(size, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(turn, rotation(size, drawn()))
    assert size == 1 or not torch.equal(turn.abs() * turn.sign(), rotation(size, drawn(5)))


def test_the_signs_stand_before_the_matrix() -> None:
    signs = torch.randint(0, 2, (32,), generator=drawn()).double() * 2 - 1
    turn = rotation(32, drawn())
    assert torch.equal(turn, signs[:, None] * hadamard(32) / 32**0.5)
    even = torch.ones(32, dtype=torch.float64)
    assert float((even @ turn).abs().max()) < 4, "all channels alike are spread, and not put into the first"
    assert float((even @ hadamard(32) / 32**0.5).abs().max()) == pytest.approx(32**0.5)  # type: ignore[operator]


def test_what_no_hadamard_matrix_fits_is_mixed_by_a_rotation_of_the_odd_part() -> None:
    turn = rotation(36 // 3, drawn()), rotation(20 // 4 * 2, drawn())
    assert bool((turn[0].abs() - 12**-0.5).abs().max() < 1e-12)
    blocks = turn[1].abs().view(2, 5, 2, 5)
    torch.testing.assert_close(blocks[0, :, 0], blocks[1, :, 1])
    torch.testing.assert_close(2 * turn[1].square().view(2, 5, 2, 5).sum(1), torch.ones(2, 2, 5, dtype=torch.float64))


def test_any_rotation_is_as_likely_as_any_other() -> None:
    """Of an even draw the first entry has mean 0 and mean square 1 / size; without the signs of R's diagonal its mean is not 0."""
    draw = drawn()
    firsts = torch.stack([random_rotation(3, draw)[0, 0] for _ in range(600)])
    assert abs(float(firsts.mean())) < 4 * (1 / 3 / 600) ** 0.5
    assert float(firsts.square().mean()) == pytest.approx(1 / 3, abs=0.05)
