"""Which tensor of a GGUF file is which part of a network. One table, followed in both directions.

    file                        network
    [out, in]                   the same, of a ``Linear``; turned, of GPT-2's ``Conv1D``
    blk.0.attn_q, .attn_k       Llama's and Mistral's queries and keys, whose channels stand in another order: files rotate neighbours, (0, 1), (2, 3) …,
                                transformers rotates halves, (0, n / 2), (1, n / 2 + 1) …; Qwen's files do so too

Biases and norms are vectors. Token embeddings stand once where the output layer is tied to them.
Source: the GGUF specification, "Standardized tensor names"; Su et al. 2021, arXiv:2104.09864, section 3.4 (rotation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int

from recompress.errors import InputError
from recompress.models.architecture import Layer, architecture_of, is_linear, layers_of, shape_of
from recompress.models.gguf.shape import check_family

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

POSITIONS = {"gpt2": "wpe"}
NEIGHBOURS = ("llama", "mistral")
"""Families whose files rotate neighbours among the channels of queries and keys; those of others rotate halves, as transformers does."""
NEURONS_IN = {1: ("ffn_up",), 2: ("ffn_gate", "ffn_up")}


@dataclass(frozen=True)
class Place:
    """A tensor of a file, and where it stands in the network."""

    name: str
    """What the file calls it."""
    module: Any
    part: str = "weight"
    heads: int | None = None
    """Heads whose rotated channels are its rows."""
    factors: Tensor | None = field(default=None, compare=False)
    """What columns of packed matrices are multiplied with (AWQ's 1 / s) where all behind a norm have the same: the file's norm takes them, and its matrices lack them."""

    @property
    def is_matrix(self) -> bool:
        return self.part == "weight" and not self.is_norm

    @property
    def is_norm(self) -> bool:
        return self.name.rpartition(".")[0].endswith("norm")


def places(network: PreTrainedModel) -> Iterator[Place]:
    """All tensors of a file that holds this network. Raises ``InputError`` for a family that no file is written or read of here."""
    family = architecture_of(network).name
    check_family(family)
    backbone = network.base_model
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    yield Place("token_embd.weight", embedding)
    if family in POSITIONS:
        yield Place("position_embd.weight", backbone.get_submodule(POSITIONS[family]))
    for layer in layers_of(network):
        yield from _of_layer(layer)
    yield from _with_bias("output_norm", backbone.get_submodule(architecture_of(network).last_norm))
    if output is not None and not is_tied(network):
        yield Place("output.weight", output)


def _of_layer(layer: Layer) -> Iterator[Place]:
    before, norms = f"blk.{layer.index}.", layer.architecture.norms
    neighbours = layer.architecture.name in NEIGHBOURS
    factors = _shared_factors((layer.query, layer.key, layer.value))
    yield from _with_bias(f"{before}attn_norm", layer.module.get_submodule(norms[0]), factors=factors)
    if layer.architecture.fused:
        yield from _with_bias(f"{before}attn_qkv", layer.query, factors=factors)
    else:
        yield from _with_bias(f"{before}attn_q", layer.query, layer.heads if neighbours else None, factors)
        yield from _with_bias(f"{before}attn_k", layer.key, layer.groups if neighbours else None, factors)
        yield from _with_bias(f"{before}attn_v", layer.value, factors=factors)
    for name, path in zip(("attn_q_norm", "attn_k_norm"), layer.architecture.head_norms, strict=False):
        yield from _with_bias(f"{before}{name}", layer.module.get_submodule(path))
    yield from _with_bias(f"{before}attn_output", layer.out)
    factors = _shared_factors(layer.neurons_in)
    yield from _with_bias(f"{before}ffn_norm", layer.module.get_submodule(norms[1]), factors=factors)
    for name, linear in zip(NEURONS_IN[len(layer.neurons_in)], layer.neurons_in, strict=True):
        yield from _with_bias(f"{before}{name}", linear, factors=factors)
    yield from _with_bias(f"{before}ffn_down", layer.neurons_out)


def _with_bias(name: str, module: Any, heads: int | None = None, factors: Tensor | None = None) -> Iterator[Place]:
    yield Place(f"{name}.weight", module, heads=heads, factors=factors)
    if getattr(module, "bias", None) is not None:
        yield Place(f"{name}.bias", module, "bias", heads, factors)


def _shared_factors(linears: Sequence[Any]) -> Tensor | None:
    """The factors of columns that all of these have, if they have the same."""
    every = [getattr(linear, "columns", None) for linear in linears]
    first = every[0]
    return first.float() if first is not None and all(other is not None and other.equal(first) for other in every) else None


def is_tied(network: PreTrainedModel) -> bool:
    """Whether the output layer is the token embeddings, packed ones included."""
    one, other = (_stored_in(module) for module in (network.get_input_embeddings(), network.get_output_embeddings()))
    return one is not None and other is not None and one.data_ptr() == other.data_ptr()


def _stored_in(module: Any) -> Tensor | None:
    """What stands in memory for a matrix: its codes, where it is packed."""
    stored: Tensor | None = module.codes if hasattr(module, "codes") else getattr(module, "weight", None)
    return stored


def rows_of(place: Place) -> Int[Tensor, " rows"] | None:
    """For each row of the file the row of the network that it is; ``None`` where they are in the same order."""
    import torch

    if place.heads is None:
        return None
    rows = shape_of(place.module)[0]
    return torch.arange(rows).view(place.heads, 2, rows // place.heads // 2).transpose(1, 2).flatten()


def numbers_at(place: Place) -> Float[Tensor, "..."]:
    """The numbers as the file has them; ``[out, in]`` for matrices."""
    numbers: Tensor = getattr(place.module, place.part).detach()
    if _is_turned(place):
        numbers = numbers.T
    if place.factors is not None and place.is_norm:
        numbers = numbers * place.factors
    elif place.factors is not None and place.is_matrix:
        numbers = numbers / place.factors
    rows = rows_of(place)
    return (numbers if rows is None else numbers[rows]).float().contiguous()


def put_at(place: Place, numbers: Float[Tensor, "..."]) -> None:
    """Write what a file has into the network. Raises ``InputError`` where the shapes differ."""
    here = numbers_at(place)
    if numbers.shape != here.shape:
        raise InputError(f"tensor {place.name} has the shape {list(numbers.shape)}, and by what the file says of itself it should be {list(here.shape)}")
    rows = rows_of(place)
    if rows is not None:
        numbers = numbers[rows.argsort()]
    stored: Tensor = getattr(place.module, place.part).data
    stored.copy_(numbers.T if _is_turned(place) else numbers)


def _is_turned(place: Place) -> bool:
    from torch import nn

    return place.part == "weight" and is_linear(place.module) and not isinstance(place.module, nn.Linear)
