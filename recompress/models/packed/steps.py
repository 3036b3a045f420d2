"""Each weight a code of its own: even steps, or a list of levels.

weight[o, i] = scale[o, g] * (code[o, i] - zero[o, g]) * column[i]          g: the group of columns that i is in
weight[o, i] = scale[o, g] * level[code[o, i]] * column[i]                  where there are levels (a codebook)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from recompress.models.packed.bits import codes_in_a_byte, pack, row_bytes, unpack
from recompress.models.packed.scales import form_of, lift_of, lifted, lowered
from recompress.models.packed.tables import looked_up

DTYPES = {"codes": torch.uint8, "form": torch.int32, "scales": torch.float16, "zeros": torch.uint8, "levels": torch.float16, "columns": torch.float16}
NEEDED = {"codes", "form", "scales"}


class Quantized(NamedTuple):
    """A matrix as codes and what they mean. Without ``zeros`` and ``levels``, the zero is ``2 ** (bits - 1)``."""

    codes: UInt8[Tensor, "rows columns"]
    bits: int
    scales: Float[Tensor, "rows groups"]
    zeros: Int[Tensor, "rows groups"] | None = None
    levels: Float[Tensor, "#rows codes"] | None = None
    """One row of levels for the whole matrix, or one for each row of it."""
    columns: Float[Tensor, " columns"] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.codes.shape
        return rows, columns

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store."""
        lift = lift_of(self.scales)
        integers = {"codes": pack(self.codes, self.bits), "form": form_of(self.codes.shape[1], self.bits, lift, self.codes.device)}
        rest = {"scales": lifted(self.scales, lift), "zeros": self.zeros, "levels": self.levels, "columns": self.columns}
        return integers | {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in rest.items() if tensor is not None}


def values(stored: Mapping[str, Tensor], part: Any, columns: int, bits: int, lift: int) -> Float[Tensor, "part columns"]:
    """Some rows of the matrix, as floats."""
    packed, scales = stored["codes"][part], lowered(stored["scales"][part], lift)
    if "levels" in stored:
        levels = stored["levels"].float()
        levels = levels[part] if len(levels) == len(stored["codes"]) else levels
        matrix = _levels_of(packed, levels, bits, columns)
    else:
        matrix = unpack(packed, bits, columns).float()
    grouped = matrix.view(len(matrix), scales.shape[1], columns // scales.shape[1])
    if "levels" not in stored:
        grouped -= stored["zeros"][part].float()[:, :, None] if "zeros" in stored else float(1 << (bits - 1))
    grouped *= scales[:, :, None]
    if "columns" in stored:
        matrix *= stored["columns"].float()
    return matrix


def _levels_of(packed: UInt8[Tensor, "rows bytes"], levels: Float[Tensor, "#rows codes"], bits: int, columns: int) -> Float[Tensor, "rows columns"]:
    """The level of each code: of levels that all rows share, those of a whole byte at once."""
    if len(levels) == 1 and 8 % bits == 0:
        return looked_up(levels[0][codes_in_a_byte(bits).to(levels.device).long()], packed)[:, :columns].contiguous()
    return levels.expand(len(packed), -1).gather(1, unpack(packed, bits, columns).long())


def fits(tensors: Mapping[str, Tensor], rows: int, columns: int, bits: int) -> bool:
    """Whether the shapes of stored tensors belong to each other."""
    codes, scales = tensors["codes"], tensors["scales"]
    levels, zeros, column = (tensors.get(name) for name in ("levels", "zeros", "columns"))
    return all(
        [
            codes.shape[1] == row_bytes(columns, bits),
            scales.ndim == 2 and len(scales) == rows and scales.shape[1] > 0 and columns % scales.shape[1] == 0,
            zeros is None or zeros.shape == scales.shape,
            levels is None or (levels.ndim == 2 and len(levels) in (1, rows) and levels.shape[1] == 1 << bits),
            column is None or tuple(column.shape) == (columns,),
        ]
    )
