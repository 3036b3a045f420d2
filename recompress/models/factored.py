"""A matrix stored as two: ``weight = second @ first`` for a linear layer, ``first @ second.T`` for an embedding, with ``rank`` numbers in between.

    linear layer    [out, in]          first [rank, in]         second [out, rank] and the bias        x -> second(first(x))
    embedding       [vocab, hidden]    first [vocab, rank]      second [hidden, rank]                  token -> second(first[token])

The two are plain linear layers and embeddings, so that what changes linear layers changes the factors. A module is replaced whole, as with packed weights;
``fit_factored`` does so for a network that is read back, by the names of the stored tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recompress.errors import IntegrityError
from recompress.models.architecture import Linear, is_linear, layers_of, shape_of
from recompress.models.packed import place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MARKS = (".first.weight", ".first.codes")


class FactoredLinear(nn.Module):
    """``x @ (second @ first).T + bias``. Its parts are linear layers, plain or packed."""

    def __init__(self, first: Linear, second: Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    @property
    def in_features(self) -> int:
        return int(self.first.in_features)

    @property
    def out_features(self) -> int:
        return int(self.second.out_features)

    @property
    def rank(self) -> int:
        return int(self.first.out_features)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The product, a copy: what is written to it is lost."""
        product: Tensor = self.second.weight @ self.first.weight
        return product

    @property
    def bias(self) -> Any:
        return self.second.bias

    def forward(self, given: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        came: Tensor = self.second(self.first(given))
        return came


class FactoredEmbedding(nn.Module):
    """Rows by their numbers, ``first[number] @ second.T``."""

    def __init__(self, first: Any, second: Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    @property
    def num_embeddings(self) -> int:
        return int(self.first.num_embeddings)

    @property
    def embedding_dim(self) -> int:
        return int(self.second.out_features)

    @property
    def rank(self) -> int:
        return int(self.second.in_features)

    @property
    def padding_idx(self) -> int | None:
        return getattr(self.first, "padding_idx", None)

    @property
    def weight(self) -> Float[Tensor, "vocab hidden"]:
        """The product, a copy: what is written to it is lost."""
        product: Tensor = self.first.weight @ self.second.weight.T
        return product

    def forward(self, numbers: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
        came: Tensor = self.second(self.first(numbers))
        return came


class FactoredOutput(nn.Module):
    """The output layer that is tied to a factored embedding: its parts are the embedding's own."""

    def __init__(self, embedding: FactoredEmbedding, bias: Any) -> None:
        super().__init__()
        self.first, self.second = embedding.first, embedding.second
        self.bias = bias
        self.out_features, self.in_features = embedding.num_embeddings, embedding.embedding_dim

    @property
    def weight(self) -> Float[Tensor, "vocab hidden"]:
        """The product, a copy: what is written to it is lost."""
        product: Tensor = self.first.weight @ self.second.weight.T
        return product

    def forward(self, given: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        return nn.functional.linear(given @ self.second.weight, self.first.weight, self.bias)


def factored_linear(second: Float[Tensor, "out rank"], first: Float[Tensor, "rank in"], bias: Float[Tensor, " out"] | None) -> FactoredLinear:
    """In the place of a linear layer, with its bias."""
    return FactoredLinear(_linear(first, None), _linear(second, bias))


def factored_embedding(first: Float[Tensor, "vocab rank"], second: Float[Tensor, "hidden rank"], padding_idx: int | None) -> FactoredEmbedding:
    """In the place of an embedding."""
    table = nn.Embedding(first.shape[0], first.shape[1], padding_idx=padding_idx, device="meta")
    table.weight = nn.Parameter(first.contiguous())
    return FactoredEmbedding(table, _linear(second, None))


def tie_factored(network: PreTrainedModel) -> None:
    """Where the output layer is tied to a factored embedding, let it use the same two tensors."""
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    if isinstance(embedding, FactoredEmbedding) and output is not None and network.config.tie_word_embeddings:
        name = next(name for name, module in network.named_modules() if module is output)
        place(network, name, FactoredOutput(embedding, getattr(output, "bias", None)))


def token_table(network: PreTrainedModel) -> Any:
    """The matrix with a row for each token: the embedding, or the first factor of one."""
    embedding: Any = network.get_input_embeddings()
    return embedding.first if isinstance(embedding, FactoredEmbedding) else embedding


def fit_factored(network: nn.Module, stored: Mapping[str, Tensor]) -> bool:
    """Put empty factors where ``stored`` has two matrices for one, for ``load_state_dict`` to fill; true where there are any.

    Raises ``IntegrityError`` for tensors that do not fit each other or the network. Layers of a whole network may have other shapes than its config says:
    there ``surgery.fit_shapes`` looks whether they fit each other.
    """
    paths = sorted({name.removesuffix(mark) for name in stored for mark in MARKS if name.endswith(mark)})
    free: set[int] = {id(part) for layer in layers_of(network) for part in layer.module.modules()} if hasattr(network, "base_model") else set()
    for path in paths:
        module = _part(network, path)
        if isinstance(module, FactoredLinear):
            continue  # a step that goes on with a network which was factored before
        first, second = (_shape(stored, f"{path}.{part}") for part in ("first", "second"))
        if isinstance(module, nn.Embedding):
            shape, fits, known = (first[0], second[0]), first[1] == second[1], tuple(module.weight.shape)
        elif is_linear(module):
            shape, fits, known = (second[0], first[1]), first[0] == second[1], shape_of(module)
        else:
            raise IntegrityError(f"{path} is stored as two factors, but it is no matrix")
        if not fits:
            raise IntegrityError(f"{path} is stored as two factors, but {list(first)} and {list(second)} do not fit each other")
        if shape != known and id(module) not in free:
            raise IntegrityError(f"{path} is stored as {list(shape)}, the config says {list(known)}")
        _check_bias(path, stored, module, second[0])
        if isinstance(module, nn.Embedding):
            place(network, path, factored_embedding(torch.empty(first), torch.empty(second), module.padding_idx))
        else:
            place(network, path, factored_linear(torch.empty(second), torch.empty(first), None if module.bias is None else torch.empty(second[0])))
    return bool(paths)


def is_factored(network: nn.Module) -> bool:
    """Whether any linear layer is stored as two."""
    return any(isinstance(module, FactoredLinear) for module in network.modules())


def _part(network: nn.Module, path: str) -> Any:
    try:
        return network.get_submodule(path)
    except AttributeError:
        raise IntegrityError(f"{path} is stored as two factors, but the model has no such part") from None


def _linear(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")  # on no device: nothing is drawn for what is replaced at once
    linear.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


def _shape(stored: Mapping[str, Tensor], path: str) -> Sequence[int]:
    """Rows and columns of a factor, also of one that is packed."""
    weight, codes, form = (stored.get(f"{path}.{name}") for name in ("weight", "codes", "form"))
    shape = tuple(weight.shape) if weight is not None else (len(codes), int(form.flatten()[0])) if codes is not None and form is not None else ()
    if len(shape) != 2 or min(shape) < 1:
        raise IntegrityError(f"{path} is one of two factors, but it is missing or no matrix")
    return shape


def _check_bias(path: str, stored: Mapping[str, Tensor], module: Any, rows: int) -> None:
    bias = stored.get(f"{path}.second.bias")
    if (bias is None) != (getattr(module, "bias", None) is None) or (bias is not None and tuple(bias.shape) != (rows,)):
        raise IntegrityError(f"{path} is stored as two factors, but its bias is missing, not expected, or of another size")
