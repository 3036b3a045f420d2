"""Graphs without their weights. What torch's exporter makes of a network depends on the network's shape, and takes seconds however small that is; so the graph of each
shape is kept, and filled with the weights of the next network of that shape. Whoever exports compares the answers all the same.

A shape is everything that could show in a graph but the weights: classes, configuration, plain attributes of every module (heads that were cut are no longer what the
configuration says), the parameters' names, sizes and ties, and the buffers with their content. A network that is changed from outside (hooks, a forward of its own)
has no shape. Of a head that does not answer in tokens, the vocabulary may be another one: its size stands nowhere in the graph.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn
    from transformers import PreTrainedModel

KEPT = 64
"""Outlines of a process; each takes some hundred kilobytes."""
NAMES = frozenset(("id2label", "label2id", "transformers_version"))
"""What a configuration says that is for people."""
ROWS, OF_TABLE = frozenset(("vocab_size",)), frozenset(("num_embeddings", "padding_idx"))
"""What says how many tokens there are: anywhere, and in the table alone."""
OF_TORCH = frozenset(("_parameters", "_buffers", "_modules", "training", "config", "name_or_path", "_is_accelerate_prepared"))
"""What every module keeps, what is told elsewhere, where it was read from, and that it was trained here."""
_kept: OrderedDict[str, Outline] = OrderedDict()


@dataclass(frozen=True)
class Outline:
    """A graph, and which parameter each of its constants is."""

    graph: onnx.ModelProto
    filled: dict[str, tuple[str, bool]]
    """Constants that are left out of ``graph``: the parameter, and whether it is turned round."""
    fixed: dict[str, str]
    """Parameters that are no constant of the graph, because nothing uses them or because they were reckoned into others: the graph holds for these digests."""


def recall(shape: str | None, network: PreTrainedModel) -> onnx.ModelProto | None:
    """The graph of this network, if one of its shape was made before."""
    import onnx

    if shape is None or shape not in _kept:
        return None
    outline, parameters = _kept[shape], dict(network.named_parameters())
    if any(_digest(parameters[name]) != digest for name, digest in outline.fixed.items()):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(outline.graph)
    for tensor in model.graph.initializer:
        if tensor.name in outline.filled:
            name, turned = outline.filled[tensor.name]
            values = _values(parameters[name])
            values = np.ascontiguousarray(values.T if turned else values)
            tensor.dims[:] = values.shape
            tensor.raw_data = values.tobytes()
    _kept.move_to_end(shape)
    return model


def remember(shape: str | None, model: onnx.ModelProto, network: PreTrainedModel) -> None:
    """Keep the outline of a graph that was just made of ``network``; not where two parameters are alike and it cannot be seen which of them a constant is."""
    import onnx

    if shape is None:
        return
    parameters = dict(network.named_parameters())
    places: dict[str, list[tuple[str, bool]]] = {}
    for name, parameter in parameters.items():
        values = _values(parameter)
        for turned in (False, True) if values.ndim == 2 else (False,):
            places.setdefault(_digest_of(values.T if turned else values), []).append((name, turned))
    outline = onnx.ModelProto()
    _copy_but_constants(model, outline)
    filled: dict[str, tuple[str, bool]] = {}
    for tensor in model.graph.initializer:
        own = tensor.name.removeprefix("network.")
        found = places.get(_digest_of(onnx.numpy_helper.to_array(tensor)), []) if tensor.data_type == onnx.TensorProto.FLOAT else []
        place = (own, False) if (own, False) in found else found[0] if len(found) == 1 else None
        if place is None:
            if found:
                return
            outline.graph.initializer.add().CopyFrom(tensor)
        else:
            filled[tensor.name] = place
            outline.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    there = {name for name, _ in filled.values()}
    _kept[shape] = Outline(outline, filled, {name: _digest(parameters[name]) for name in parameters if name not in there})
    while len(_kept) > KEPT:
        _kept.popitem(last=False)


def shape_of(network: PreTrainedModel, inputs: tuple[str, ...]) -> str | None:
    """The digest of all that the exporter can see but weights; None for a network that is changed from outside."""
    free = _free_rows(network)
    rows = frozenset() if free is None else ROWS
    config = {key: value for key, value in network.config.to_dict().items() if key not in NAMES | rows and not key.startswith("_")}
    said: list[Any] = [inputs, json.dumps(config, sort_keys=True, default=str)]
    for name, module in network.named_modules():
        if "forward" in vars(module) or any(value for key, value in vars(module).items() if key.endswith("_hooks")):
            return None
        said.append((name, _name(type(module)), sorted(_attributes(module, rows | (OF_TABLE if module is free else frozenset())))))
    ties: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)[free is not None and parameter is free.weight :]
        said.append((name, shape, str(parameter.dtype), ties.setdefault(id(parameter), name)))
    said.extend((name, _digest(buffer)) for name, buffer in network.named_buffers())
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _free_rows(network: PreTrainedModel) -> nn.Embedding | None:
    """The table of tokens: only a layer that answers in tokens shows how many there are, and says so itself."""
    import torch

    table = network.get_input_embeddings()
    return table if type(table) is torch.nn.Embedding else None


def _attributes(module: nn.Module, passed: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What a module keeps beside parameters, buffers and parts, as text."""
    import torch

    for key, value in vars(module).items():
        if key in OF_TORCH | passed:
            continue
        if isinstance(value, torch.Tensor):
            yield key, _digest(value)
        elif isinstance(value, bool | int | float | str | tuple | list | set | frozenset | torch.dtype | torch.device) or value is None:
            yield key, repr(value)
        else:
            yield key, _name(value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value))


def _name(what: Any) -> str:
    return f"{what.__module__}.{what.__qualname__}"


def _copy_but_constants(model: onnx.ModelProto, target: onnx.ModelProto) -> None:
    """Field by field, since a copy of the whole would hold the weights a second time."""
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(target, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(target.graph, field.name, value)


def _copy_field(target: Any, name: str, value: Any) -> None:
    if hasattr(value, "MergeFrom"):
        getattr(target, name).MergeFrom(value)
    elif isinstance(value, str | bytes | int | float):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(str((tensor.shape, tensor.dtype)).encode() + tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _digest_of(values: np.ndarray) -> str:
    return hashlib.sha256(str(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest()
