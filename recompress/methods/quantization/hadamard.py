"""Orthogonal matrices that mix coordinates evenly, so that what one of them holds is spread over all: Hadamard matrices, with entries of one size.

    H_2m      = [[H_m, H_m], [H_m, -H_m]],  H_1 = [1]                                                      Sylvester
    H_(q+1)   = I + S,                                 S = [[0, 1], [-1, J]],  q a prime, q = 3 mod 4      Paley's first
    H_2(q+1)  = S x [[1, 1], [1, -1]] + I x [[1, -1], [-1, -1]],  S = [[0, 1], [1, J]],  q = 1 mod 4       Paley's second
    J[i, j]   = 1 where i - j is a square modulo q, else -1, and 0 for i = j                               (x: the Kronecker product)

    Q = D H / sqrt(n)                  D: random signs                     where there is such an H of size n
    Q = D (H_p / sqrt(p) x O)          O: a random rotation of size n / p  else, with p the largest power of two that divides n

The signs stand before H, so that they decide what is mixed with what; behind it they would only change signs of what came out. 576 is 16 * 36, and 36 is 2 (17 + 1).
Source: Paley 1933, J. Math. and Phys. 12:311, lemmas 2 and 3; Sylvester 1867, Phil. Mag. 34:461; random signs: Ashkboos et al. 2024, arXiv:2404.00456, section 3.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TWO: tuple[tuple[float, float], tuple[float, float]] = ((1, 1), (1, -1))
OTHER: tuple[tuple[float, float], tuple[float, float]] = ((1, -1), (-1, -1))


def rotation(size: int, draw: torch.Generator) -> Float[Tensor, "size size"]:
    """Q in 64-bit floats, with signs and, where one is needed, a rotation from ``draw``. Rows and columns have length 1 and stand at right angles."""
    signs = torch.randint(0, 2, (size,), generator=draw).double() * 2 - 1
    whole = hadamard(size)
    if whole is None:
        even = size & -size
        whole = torch.kron(_must(hadamard(even)), random_rotation(size // even, draw) * (size // even) ** 0.5)
    turned: Float[Tensor, "size size"] = signs[:, None] * whole / size**0.5
    return turned


def hadamard(size: int) -> Float[Tensor, "size size"] | None:
    """A matrix of 1 and -1 with H H^T = size * I, in 64-bit floats; ``None`` where none of the three constructions gives one of this size."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = hadamard(size // 2) if size % 2 == 0 else None
    return paley(size) if half is None else torch.kron(torch.tensor(TWO, dtype=torch.float64), half)


def paley(size: int) -> Float[Tensor, "size size"] | None:
    """Paley's matrix of this size, the first or the second; ``None`` where no prime gives one."""
    if _is_prime(size - 1) and size % 4 == 0:
        return torch.eye(size, dtype=torch.float64) + _bordered(size - 1, -1)
    q = size // 2 - 1
    if size % 4 == 0 and q % 4 == 1 and _is_prime(q):
        square, identity = _bordered(q, 1), torch.eye(q + 1, dtype=torch.float64)
        return torch.kron(square, torch.tensor(TWO, dtype=torch.float64)) + torch.kron(identity, torch.tensor(OTHER, dtype=torch.float64))
    return None


def random_rotation(size: int, draw: torch.Generator) -> Float[Tensor, "size size"]:
    """Any orthogonal matrix is as likely as any other: Q of a QR of normal numbers, its columns turned so that R has a positive diagonal."""
    square, upper = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    turned: Float[Tensor, "size size"] = (square * torch.where(upper.diagonal() < 0, -1.0, 1.0)).contiguous()
    return turned


def _bordered(q: int, corner: int) -> Float[Tensor, "size size"]:
    """S: J with a row of 1 above it and a column of ``corner`` beside."""
    squares = {i * i % q for i in range(1, q)}
    row = torch.tensor([0.0] + [1.0 if i in squares else -1.0 for i in range(1, q)], dtype=torch.float64)
    places = torch.arange(q)
    whole = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    whole[1:, 1:] = row[(places[:, None] - places) % q]
    whole[0, 1:], whole[1:, 0] = 1, corner
    return whole


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _must(matrix: Tensor | None) -> Tensor:
    assert matrix is not None, "there is one of every power of two"
    return matrix
