"""What stands in the place of a linear layer or an embedding whose matrix is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recompress.models.architecture import Linear
from recompress.models.packed import outliers, steps, vectors

CHUNK = 1 << 22
"""Numbers that are unpacked at once."""


class Format(NamedTuple):
    """What the tensors of a matrix mean."""

    dtypes: Mapping[str, torch.dtype]
    needed: set[str]
    values: Callable[[Mapping[str, Tensor], Any, int, int], Float[Tensor, "part columns"]]
    """``values(tensors, rows, columns, bits)``"""
    fits: Callable[[Mapping[str, Tensor], int, int, int], bool]
    """``fits(tensors, rows, columns, bits)``"""


STEPS = Format(steps.DTYPES, steps.NEEDED, steps.values, steps.fits)
OUTLIERS = Format(outliers.DTYPES, outliers.NEEDED, outliers.values, outliers.fits)
VECTORS = Format(vectors.DTYPES, vectors.NEEDED, vectors.values, vectors.fits)
NAMES = tuple({**STEPS.dtypes, **OUTLIERS.dtypes, **VECTORS.dtypes})
"""All names that the tensors of a packed matrix may have."""

Matrix = steps.Quantized | outliers.WithOutliers | vectors.Vectors


def format_of(tensors: Mapping[str, Tensor]) -> Format:
    """Told by the one tensor that no other format has."""
    return OUTLIERS if "places" in tensors else VECTORS if "codebooks" in tensors else STEPS


class Packed(nn.Module):
    """A matrix ``[rows, columns]`` in few bits."""

    codes: Tensor
    scales: Tensor
    form: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, tensors.get(name))
        self.format = format_of(tensors)
        self.rows, self.columns_count, self.bits = rows, columns, int(tensors["form"][1])

    def matrix(self, chosen: Int[Tensor, " chosen"] | None = None) -> Float[Tensor, "rows columns"]:
        """All rows, or the chosen ones, as floats."""
        stored = self.tensors
        count = self.rows if chosen is None else len(chosen)
        step = max(1, CHUNK // self.columns_count)
        if count <= step:
            return self.format.values(stored, slice(None) if chosen is None else chosen, self.columns_count, self.bits)
        matrix = torch.empty((count, self.columns_count), device=stored["codes"].device)
        for start in range(0, count, step):
            part = slice(start, start + step) if chosen is None else chosen[start : start + step]
            matrix[start : start + step] = self.format.values(stored, part, self.columns_count, self.bits)
        return matrix

    @property
    def tensors(self) -> dict[str, Tensor]:
        return dict(self.named_buffers())

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """A copy in floats: what is written to it is lost."""
        return self.matrix()

    @property
    def stored_bytes(self) -> int:
        """Bytes of everything that stands in the place of the matrix."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.buffers())


class PackedLinear(Packed):
    """``x @ weight.T + bias``; where columns are outliers, the others in 8 bits on both sides."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int, bias: Tensor | None) -> None:
        super().__init__(tensors, rows, columns)
        self.out_features, self.in_features = rows, columns
        self.bias = None if bias is None else nn.Parameter(bias)
        self.held: Tensor | None = None
        """The matrix in floats, while ``unpacked`` holds it."""

    def forward(self, given: Float[Tensor, "... columns"]) -> Float[Tensor, "... rows"]:
        if self.format is OUTLIERS:
            product = outliers.product(self.tensors, given, self.columns_count)
            return product if self.bias is None else product + self.bias.to(product.dtype)
        matrix = self.matrix() if self.held is None else self.held
        return nn.functional.linear(given, matrix.to(given.dtype), self.bias)


class PackedEmbedding(Packed):
    """Rows by their numbers."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        super().__init__(tensors, rows, columns)
        self.num_embeddings, self.embedding_dim = rows, columns

    def forward(self, numbers: Int[Tensor, "..."]) -> Float[Tensor, "... columns"]:
        return self.matrix(numbers.flatten()).view(*numbers.shape, self.columns_count)


def packed_linear(matrix: Matrix, linear: Linear) -> PackedLinear:
    """In the place of ``linear``, with its bias."""
    return PackedLinear(matrix.tensors(), *matrix.shape, None if linear.bias is None else linear.bias.detach().clone())


def packed_embedding(matrix: Matrix) -> PackedEmbedding:
    return PackedEmbedding(matrix.tensors(), *matrix.shape)


@contextmanager
def unpacked(module: nn.Module) -> Iterator[None]:
    """While many batches go through ``module``: its matrices are unpacked once, and not for each of them."""
    chosen = [linear for linear in packed_linears(module).values() if linear.format is not OUTLIERS]
    for linear in chosen:
        linear.held = linear.matrix()
    try:
        yield
    finally:
        for linear in chosen:
            linear.held = None


def packed_linears(network: nn.Module) -> dict[str, PackedLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, PackedLinear)}
