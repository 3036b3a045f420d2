"""What stands in the place of a linear layer or an embedding whose matrix is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recompress.models.architecture import Linear
from recompress.models.packed import laid, outliers, steps, vectors
from recompress.models.packed.scales import read_form

CHUNK = 1 << 20
"""Numbers that are unpacked at once: their floats stay in the processor's caches."""


class Format(NamedTuple):
    """What the tensors of a matrix mean."""

    dtypes: Mapping[str, torch.dtype]
    needed: set[str]
    values: Callable[[Mapping[str, Tensor], Any, int, int, int], Float[Tensor, "part columns"]]
    """``values(tensors, rows, columns, bits, lift)``"""
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
        self.rows, self.columns_count = rows, columns
        _, self.bits, self.lift = read_form(tensors["form"])
        self.laid: laid.Laid | None = None
        """The same codes as they are multiplied, once they were."""

    def matrix(self, chosen: Int[Tensor, " chosen"] | None = None) -> Float[Tensor, "rows columns"]:
        """All rows, or the chosen ones, as floats."""
        if self.settled:
            return laid.matrix_of(self.as_laid()) if chosen is None else laid.matrix_of(self.as_laid())[chosen]
        stored = self.tensors
        count = self.rows if chosen is None else len(chosen)
        step = max(1, CHUNK // self.columns_count)
        if count <= step:
            return self.format.values(stored, slice(None) if chosen is None else chosen, self.columns_count, self.bits, self.lift)
        matrix = torch.empty((count, self.columns_count), device=stored["codes"].device)
        for start in range(0, count, step):
            part = slice(start, start + step) if chosen is None else chosen[start : start + step]
            matrix[start : start + step] = self.format.values(stored, part, self.columns_count, self.bits, self.lift)
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

    @property
    def settled(self) -> bool:
        """Whether codes are left only as they are multiplied."""
        return self._buffers["codes"] is None

    def as_laid(self) -> laid.Laid:
        """The codes as they are multiplied, laid out at the first call."""
        if self.laid is None:
            self.laid = laid.lay(self.tensors, self.columns_count, self.bits, self.lift)
        return self.laid

    def settle(self, stored: Mapping[str, Tensor]) -> None:
        """Keep ``stored``, what this matrix is, as it is multiplied and in no other way: it answers, and cannot be saved any more."""
        self.laid = laid.lay(stored, self.columns_count, self.bits, self.lift)
        for name in self.tensors.keys() - {"form"}:
            self.register_buffer(name, None)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.laid = self.laid if self.settled else None  # tensors move
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        self.laid = None
        super()._load_from_state_dict(*given, **named)

    def _save_to_state_dict(self, *given: Any, **named: Any) -> None:
        if self.settled:
            raise RuntimeError("packed weights that are laid out for answering cannot be stored any more; load the model anew")
        super()._save_to_state_dict(*given, **named)


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
            product = outliers.product(self.tensors, given, self.columns_count, self.lift)
        elif self.held is not None or torch.is_autocast_enabled(given.device.type) or (torch.is_grad_enabled() and given.requires_grad):
            matrix = self.matrix() if self.held is None else self.held
            return nn.functional.linear(given, matrix.to(given.dtype), self.bias)
        else:
            tokens = given.reshape(-1, self.columns_count)
            whole = given.dtype == torch.float32 and self.is_laid_out
            product = (laid.product(self.as_laid(), tokens) if whole else self._in_parts(tokens)).view(*given.shape[:-1], self.rows)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    @property
    def is_laid_out(self) -> bool:
        """Whether codes are multiplied as they are, and not unpacked: even steps, on the CPU."""
        return self.settled or laid.can_lay(self.tensors, self.columns_count)

    def _in_parts(self, tokens: Float[Tensor, "tokens columns"]) -> Float[Tensor, "tokens rows"]:
        """The product, unpacked part by part, so that the matrix as a whole is never there in floats."""
        step, stored = max(1, CHUNK // self.columns_count), self.tensors
        outputs = tokens.new_empty((len(tokens), self.rows))
        for start in range(0, self.rows, step):
            part = slice(start, start + step)
            values = self.format.values(stored, part, self.columns_count, self.bits, self.lift)
            torch.mm(tokens, values.to(tokens.dtype).T, out=outputs[:, part])
        return outputs


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


def unpacked_matrix(matrix: Matrix) -> Float[Tensor, "rows columns"]:
    """What the codes of a matrix stand for, as it would be read back."""
    return Packed(matrix.tensors(), *matrix.shape).matrix()


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
