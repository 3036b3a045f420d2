"""Weights in few bits: packed in memory and on disk, turned into floats when they are used.

Codes of ``bits`` bits stand one after another, the lowest bit first, and each row begins on a whole byte. What a code means:

    weight[o, i] = scale[o, g] * (code[o, i] - zero[o, g]) * column[i]          g: the group of columns that i is in
    weight[o, i] = scale[o, g] * level[code[o, i]] * column[i]                  where there are levels (a codebook)

A module is replaced whole: a linear layer by ``PackedLinear``, an embedding by ``PackedEmbedding``. ``fit_packed`` does so for a network that is read back,
by the names of the stored tensors; ``form`` says what their shapes cannot: columns and bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from recompress.architecture import Linear
from recompress.errors import IntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MARK = ".codes"
DTYPES = {"codes": torch.uint8, "form": torch.int32, "scales": torch.float16, "zeros": torch.uint8, "levels": torch.float16, "columns": torch.float16}
CHUNK = 1 << 22
"""Numbers that are unpacked at once."""


class Quantized(NamedTuple):
    """A matrix as codes and what they mean. Without ``zeros`` and ``levels``, the zero is ``2 ** (bits - 1)``."""

    codes: UInt8[Tensor, "rows columns"]
    bits: int
    scales: Float[Tensor, "rows groups"]
    zeros: Int[Tensor, "rows groups"] | None = None
    levels: Float[Tensor, "#rows codes"] | None = None
    """One row of levels for the whole matrix, or one for each row of it."""
    columns: Float[Tensor, " columns"] | None = None


def pack(codes: UInt8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, "rows bytes"]:
    """Codes below ``2 ** bits`` into ``ceil(columns * bits / 8)`` bytes for each row."""
    rows, columns = codes.shape
    width = -(-columns * bits // 8)
    packed = torch.zeros((rows, width), dtype=torch.uint8, device=codes.device)
    for bit in range(bits):
        places = torch.arange(columns, device=codes.device) * bits + bit
        values = ((codes >> bit) & 1) << (places % 8).to(torch.uint8)
        packed.index_add_(1, places // 8, values)  # no two of these meet in one bit, so that adding is joining
    return packed


def unpack(packed: UInt8[Tensor, "rows bytes"], bits: int, columns: int) -> UInt8[Tensor, "rows columns"]:
    """The other way."""
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        return ((packed[:, :, None] >> shifts) & ((1 << bits) - 1)).flatten(1)[:, :columns]
    codes = torch.zeros((len(packed), columns), dtype=torch.uint8, device=packed.device)
    for bit in range(bits):
        places = torch.arange(columns, device=packed.device) * bits + bit
        codes |= ((packed[:, places // 8] >> (places % 8).to(torch.uint8)) & 1) << bit
    return codes


class Packed(nn.Module):
    """A matrix ``[rows, columns]`` in few bits."""

    codes: Tensor
    scales: Tensor
    form: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        super().__init__()
        for name in DTYPES:
            self.register_buffer(name, tensors.get(name))
        self.rows, self.columns_count, self.bits = rows, columns, int(tensors["form"][1])

    def matrix(self, chosen: Int[Tensor, " chosen"] | None = None) -> Float[Tensor, "rows columns"]:
        """All rows, or the chosen ones, as floats."""
        stored: dict[str, Any] = dict(self.named_buffers())
        count = self.rows if chosen is None else len(chosen)
        made = torch.empty((count, self.columns_count), device=stored["codes"].device)
        step = max(1, CHUNK // self.columns_count)
        for start in range(0, count, step):
            part = slice(start, start + step) if chosen is None else chosen[start : start + step]
            made[start : start + step] = self._rows(stored, part)
        return made

    def _rows(self, stored: dict[str, Tensor], part: Any) -> Float[Tensor, "part columns"]:
        codes = unpack(stored["codes"][part], self.bits, self.columns_count)
        scales = stored["scales"][part].float()
        if "levels" in stored:
            levels = stored["levels"].float()
            levels = levels[part] if len(levels) == self.rows else levels.expand(len(codes), -1)
            values = levels.gather(1, codes.long())
        else:
            values = codes.float()
        grouped = values.view(len(codes), scales.shape[1], -1)
        if "levels" not in stored:
            grouped = grouped - (stored["zeros"][part].float()[:, :, None] if "zeros" in stored else float(1 << (self.bits - 1)))
        made = (grouped * scales[:, :, None]).flatten(1)
        return made * stored["columns"].float() if "columns" in stored else made

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """A copy in floats: what is written to it is lost."""
        return self.matrix()

    @property
    def stored_bytes(self) -> int:
        """Bytes of everything that stands in the place of the matrix."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.buffers())


class PackedLinear(Packed):
    """``x @ weight.T + bias``."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int, bias: Tensor | None) -> None:
        super().__init__(tensors, rows, columns)
        self.out_features, self.in_features = rows, columns
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, given: Float[Tensor, "... columns"]) -> Float[Tensor, "... rows"]:
        return nn.functional.linear(given, self.matrix().to(given.dtype), self.bias)


class PackedEmbedding(Packed):
    """Rows by their numbers."""

    def __init__(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> None:
        super().__init__(tensors, rows, columns)
        self.num_embeddings, self.embedding_dim = rows, columns

    def forward(self, numbers: Int[Tensor, "..."]) -> Float[Tensor, "... columns"]:
        return self.matrix(numbers.flatten()).view(*numbers.shape, self.columns_count)


def tensors_of(matrix: Quantized) -> dict[str, Tensor]:
    """The tensors to store."""
    columns = matrix.codes.shape[1]
    made = {"codes": pack(matrix.codes, matrix.bits), "form": torch.tensor([columns, matrix.bits], dtype=torch.int32, device=matrix.codes.device)}
    rest = {"scales": matrix.scales, "zeros": matrix.zeros, "levels": matrix.levels, "columns": matrix.columns}
    return made | {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in rest.items() if tensor is not None}


def packed_linear(matrix: Quantized, linear: Linear) -> PackedLinear:
    """In the place of ``linear``, with its bias."""
    rows, columns = matrix.codes.shape
    return PackedLinear(tensors_of(matrix), rows, columns, None if linear.bias is None else linear.bias.detach().clone())


def packed_embedding(matrix: Quantized) -> PackedEmbedding:
    rows, columns = matrix.codes.shape
    return PackedEmbedding(tensors_of(matrix), rows, columns)


def place(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where ``name`` was."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def tie_packed(network: PreTrainedModel) -> None:
    """Where the output layer is tied to a packed embedding, let it use the same tensors."""
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    if isinstance(embedding, PackedEmbedding) and output is not None and not isinstance(output, PackedLinear) and network.config.tie_word_embeddings:
        name = next(name for name, module in network.named_modules() if module is output)
        bias = getattr(output, "bias", None)
        place(network, name, PackedLinear(dict(embedding.named_buffers()), embedding.rows, embedding.columns_count, bias))


def fit_packed(network: nn.Module, stored: Mapping[str, Tensor]) -> bool:
    """Put empty packed modules where ``stored`` has packed weights, for ``load_state_dict`` to fill; true where there are any.

    Raises ``IntegrityError`` for tensors that do not fit each other or the network.
    """
    found = [name.removesuffix(MARK) for name in stored if name.endswith(MARK)]
    for path in found:
        tensors = {name: stored[f"{path}.{name}"] for name in DTYPES if f"{path}.{name}" in stored}
        try:
            module: Any = network.get_submodule(path)
        except AttributeError:
            raise IntegrityError(f"{path} is stored in few bits, but the model has no such part") from None
        rows, columns = _checked(path, tensors)
        empty = {name: torch.empty_like(tensor) if name != "form" else tensor.clone() for name, tensor in tensors.items()}
        if isinstance(module, nn.Embedding):
            if tuple(module.weight.shape) != (rows, columns):
                raise IntegrityError(f"{path} is stored as {[rows, columns]}, the config says {list(module.weight.shape)}")
            place(network, path, PackedEmbedding(empty, rows, columns))
        elif hasattr(module, "bias") and hasattr(module, "weight") and len(module.weight.shape) == 2:
            place(network, path, PackedLinear(empty, rows, columns, None if module.bias is None else torch.empty(rows)))
        else:
            raise IntegrityError(f"{path} is stored in few bits, but it is no matrix")
    return bool(found)


def packed_linears(network: nn.Module) -> dict[str, PackedLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, PackedLinear)}


def numbers_in(stored: Mapping[str, Tensor]) -> int:
    """Numbers in the weights that these tensors stand for: those of a packed matrix count as what they are unpacked."""
    packed = {name.removesuffix(MARK) for name in stored if name.endswith(MARK)}
    plain = sum(tensor.numel() for name, tensor in stored.items() if name.rpartition(".")[0] not in packed or name.endswith(".bias"))
    return plain + sum(len(stored[f"{path}.codes"]) * int(stored[f"{path}.form"][0]) for path in packed)


def _checked(path: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    codes, form, scales = (tensors.get(name) for name in ("codes", "form", "scales"))
    if codes is None or form is None or scales is None or any(tensor.dtype != DTYPES[name] for name, tensor in tensors.items()) or form.numel() != 2:
        raise IntegrityError(f"{path} is stored in few bits, but its tensors are incomplete or of another type")
    columns, bits = form.tolist()
    rows = len(codes)
    levels, zeros, column = (tensors.get(name) for name in ("levels", "zeros", "columns"))
    fits = [
        bits in range(1, 9) and columns > 0,
        codes.ndim == 2 and codes.shape[1] == -(-columns * bits // 8),
        scales.ndim == 2 and len(scales) == rows and scales.shape[1] > 0 and columns % scales.shape[1] == 0,
        zeros is None or zeros.shape == scales.shape,
        levels is None or (levels.ndim == 2 and len(levels) in (1, rows) and levels.shape[1] == 1 << bits),
        column is None or tuple(column.shape) == (columns,),
    ]
    if not all(fits):
        raise IntegrityError(f"{path} is stored in few bits, but the shapes of its tensors do not fit each other")
    return rows, columns
