"""Codebooks of vectors: ``width`` neighbouring weights of a row are one code, or a sum of several.

    weight[o, g * width : (g + 1) * width] = scale[o] * sum_m codebook[m, code[o, g, m]]          g: a group of columns

Source: Jégou et al. 2011, "Product quantization for nearest neighbor search" (one codebook); Babenko and Lempitsky 2014, "Additive quantization" (sums).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from recompress.models.packed.bits import pack, row_bytes, unpack
from recompress.models.packed.scales import form_of, lift_of, lifted, lowered
from recompress.models.packed.tables import looked_up

DTYPES = {"codes": torch.uint8, "form": torch.int32, "scales": torch.float16, "codebooks": torch.float16}
NEEDED = set(DTYPES)


class Vectors(NamedTuple):
    """A matrix as codes of vectors."""

    codes: UInt8[Tensor, "rows groups books"]
    bits: int
    """Bits of a code: a codebook has ``2 ** bits`` vectors."""
    codebooks: Float[Tensor, "books vectors width"]
    scales: Float[Tensor, "rows 1"]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.codes.shape[1] * self.codebooks.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store."""
        lift = lift_of(self.scales)
        form = form_of(self.shape[1], self.bits, lift, self.codes.device)
        tensors = {"codes": pack(self.codes.flatten(1), self.bits), "form": form, "scales": lifted(self.scales, lift), "codebooks": self.codebooks}
        return {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in tensors.items()}


def values(stored: Mapping[str, Tensor], part: Any, columns: int, bits: int, lift: int) -> Float[Tensor, "part columns"]:
    """Some rows of the matrix, as floats."""
    codebooks = stored["codebooks"].float()
    books, _, width = codebooks.shape
    codes = unpack(stored["codes"][part], bits, columns // width * books)
    matrix: Tensor = decoded(codes.reshape(len(codes), columns // width, books), codebooks)
    matrix *= lowered(stored["scales"][part], lift)
    return matrix


def decoded(codes: UInt8[Tensor, "rows groups books"], codebooks: Float[Tensor, "books vectors width"]) -> Float[Tensor, "rows columns"]:
    """The sums of vectors, without scales."""
    first, *others = codebooks
    sums: Tensor = looked_up(first, codes[:, :, 0])
    for m, book in enumerate(others, 1):
        sums += looked_up(book, codes[:, :, m])
    return sums


def fits(tensors: Mapping[str, Tensor], rows: int, columns: int, bits: int) -> bool:
    """Whether the shapes of stored tensors belong to each other."""
    codes, scales, codebooks = (tensors[name] for name in ("codes", "scales", "codebooks"))
    if codebooks.ndim != 3 or 0 in codebooks.shape:
        return False
    books, vectors, width = codebooks.shape
    return columns % width == 0 and vectors == 1 << bits and codes.shape[1] == row_bytes(columns // width * books, bits) and tuple(scales.shape) == (rows, 1)
