"""Packed modules into a network, and what is stored of them read back with suspicion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recompress.errors import IntegrityError
from recompress.models.packed.modules import NAMES, PackedEmbedding, PackedLinear, format_of, packed_linears
from recompress.models.packed.scales import MOST, read_form

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MARK = ".codes"


def place(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where ``name`` was, and wherever else that same module stood: layers may share their weights."""
    was = network.get_submodule(name)
    for parent in list(network.modules()):
        for leaf, child in list(parent._modules.items()):
            if child is was:
                setattr(parent, leaf, module)


def tie_packed(network: PreTrainedModel) -> None:
    """Where the output layer is tied to a packed embedding, let it use the same tensors."""
    embedding: Any = network.get_input_embeddings()
    output: Any = network.get_output_embeddings()
    if isinstance(embedding, PackedEmbedding) and output is not None and not isinstance(output, PackedLinear) and network.config.tie_word_embeddings:
        name = next(name for name, module in network.named_modules() if module is output)
        bias = getattr(output, "bias", None)
        place(network, name, PackedLinear(embedding.tensors, embedding.rows, embedding.columns_count, bias))


def fit_packed(network: nn.Module, stored: Mapping[str, Tensor]) -> bool:
    """Put empty packed modules where ``stored`` has packed weights, for ``load_state_dict`` to fill; true where there are any.

    Raises ``IntegrityError`` for tensors that do not fit each other or the network.
    """
    paths = [name.removesuffix(MARK) for name in stored if name.endswith(MARK)]
    for path in paths:
        tensors = {name: stored[f"{path}.{name}"] for name in NAMES if f"{path}.{name}" in stored}
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
    return bool(paths)


def settle_packed(network: nn.Module, names: Mapping[int, str], read_into: Callable[[Tensor, str], None]) -> set[str]:
    """Read each packed matrix that is only multiplied straight into the form in which it is, one after another, so that the codes are in memory once; gives the
    names of what nobody has to read any more. ``names``: what the tensor at an address is called where it is stored."""
    linears = [linear for linear in packed_linears(network).values() if linear.is_laid_out]
    tables = {tensor.data_ptr() for module in network.modules() if isinstance(module, PackedEmbedding) for tensor in module.tensors.values()}
    done: set[str] = set()
    for linear in linears:
        stored = {}
        for name, tensor in linear.tensors.items():
            stored[name] = tensor if tensor.data_ptr() in tables else torch.empty_like(tensor)  # embeddings keep theirs
            read_into(stored[name], names[tensor.data_ptr()])
            done.add(names[tensor.data_ptr()])
        linear.settle(stored)
    return done


def numbers_in(stored: Mapping[str, Tensor]) -> int:
    """Numbers in the weights that these tensors stand for: those of a packed matrix count as what they are unpacked."""
    packed = {name.removesuffix(MARK) for name in stored if name.endswith(MARK)}
    plain = sum(tensor.numel() for name, tensor in stored.items() if name.rpartition(".")[0] not in packed or name.endswith(".bias"))
    return plain + sum(len(stored[f"{path}.codes"]) * int(stored[f"{path}.form"][0]) for path in packed)


def _checked(path: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    kind = format_of(tensors)
    complete = kind.needed <= tensors.keys() <= kind.dtypes.keys() and all(tensor.dtype == kind.dtypes[name] for name, tensor in tensors.items())
    if not complete or tensors["form"].numel() != 2:
        raise IntegrityError(f"{path} is stored in few bits, but its tensors are incomplete or of another type")
    columns, bits, lift = read_form(tensors["form"])
    rows = len(tensors["codes"])
    if not (bits in range(1, 9) and lift in range(MOST + 1) and columns > 0 and tensors["codes"].ndim == 2 and kind.fits(tensors, rows, columns, bits)):
        raise IntegrityError(f"{path} is stored in few bits, but the shapes of its tensors do not fit each other")
    return rows, columns
