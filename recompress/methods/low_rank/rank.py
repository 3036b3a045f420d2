"""How large the factors may be: by share of a matrix's parameters, by energy kept, or by the bytes of the whole model.

    parameters:   rank = floor(share * out * in / (out + in)), at least 1
    energy:       rank = the smallest with  sum of the first rank s^2 >= energy * sum of all s^2         s: singular values, the largest first
    size_bytes:   the largest share for which the whole model fits

A matrix whose factors would not be smaller than it is left whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from recompress.errors import InputError
from recompress.models.files import distinct_tensors
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shape = tuple[int, int]
FLOAT_BYTES = 4
HALVINGS = 50
"""Steps of the search for a share: more than a 32-bit float can tell apart."""


class Rank(Settings):
    """How large the factors may be. One of the three is given; the share of parameters counts where none is."""

    parameters: Annotated[float, Field(gt=0, lt=1)] | None = 0.5
    """Share of its parameters that each matrix keeps as two factors, in (0, 1)."""
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the sum of squared singular values that each matrix keeps, in (0, 1]; 1 leaves all whole."""
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes of all tensors of the model, at most; the same share of each matrix."""

    @model_validator(mode="before")
    @classmethod
    def _the_default_steps_back(cls, given: Any) -> Any:
        """What is asked for otherwise takes the place of the share that counts by default."""
        otherwise = isinstance(given, Mapping) and any(given.get(name) is not None for name in ("rank", "energy", "size_bytes"))
        return {"parameters": None, **given} if otherwise else given


def check_rank(config: Rank, names: Sequence[str] = ("parameters", "energy", "size_bytes")) -> None:
    """Raises ``InputError`` unless exactly one of the dials is given."""
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}, got {' and '.join(given) or 'none'}")


def rank_by_share(shape: Shape, share: float) -> int:
    """Of factors that have this share of the matrix's parameters, or the smallest ones that there are."""
    rows, columns = shape
    return max(1, int(share * rows * columns / (rows + columns) + 1e-9))


def rank_by_energy(singular: Float[Tensor, " values"], energy: float) -> int:
    """The fewest singular values, the largest first, whose squares are this share of all."""
    energies = singular.double().square().cumsum(0)
    return 1 + int(torch.searchsorted(energies[:-1].contiguous(), energy * energies[-1]))


def is_smaller(shape: Shape, rank: int) -> bool:
    """Whether factors of this rank have fewer numbers than the matrix."""
    rows, columns = shape
    return rank * (rows + columns) < rows * columns


def numbers_with(shape: Shape, rank: int) -> int:
    """Numbers of the factors, or of the matrix where these are not fewer."""
    rows, columns = shape
    return rank * (rows + columns) if is_smaller(shape, rank) else rows * columns


def share_for(config: Rank, network: PreTrainedModel, shapes: Sequence[Shape]) -> float | None:
    """The share that is asked for, or follows from the bytes; ``None`` where the energy decides.

    Raises ``InputError`` for bytes that the smallest factors exceed, or that the model does not exceed as it is.
    """
    if config.size_bytes is None:
        return config.parameters
    now = tensor_bytes(network)
    rest = now - FLOAT_BYTES * sum(rows * columns for rows, columns in shapes)

    def size(share: float) -> int:
        return rest + FLOAT_BYTES * sum(numbers_with(shape, rank_by_share(shape, share)) for shape in shapes)

    if now <= config.size_bytes:
        raise InputError(f"size_bytes {config.size_bytes:,} is no less than the {now:,} bytes that the model has already; ask for less, or leave the step out")
    if size(0) > config.size_bytes:
        raise InputError(f"size_bytes {config.size_bytes:,} cannot be reached: factors of rank 1 leave {size(0):,} bytes; allow more, or shrink the rest first")
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= config.size_bytes else (low, middle)
    return low


def rank_for(config: Rank, share: float | None, shape: Shape, singular: Float[Tensor, " values"]) -> int | None:
    """The rank of one matrix; ``None`` where it stays whole."""
    rank = rank_by_energy(singular, config.energy or 1.0) if share is None else rank_by_share(shape, share)
    return rank if is_smaller(shape, rank) else None


def tensor_bytes(network: PreTrainedModel) -> int:
    """Bytes of all tensors, each once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct_tensors(network).values())
