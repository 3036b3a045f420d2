"""A network with packed weights as an ONNX graph that multiplies their codes.

The network is exported in floats, with what the codes stand for, and compared with itself as any export is. Then each product with, and each look-up in, such
a matrix is replaced; a matrix is found by its numbers, of which the codes are another way to write them, so that a name that the exporter changed does no harm.

    MatMul(x, W^T)       ->  MatMulNBits(x * inputs, codes, scales, zeros)
    Gather(W, numbers)   ->  GatherBlockQuantized(codes, numbers, scales, zeros)

What a session multiplies must lie in the file as it is: behind a node that it would have to fold first, the int8 kernel is silently wrong where nothing is
folded. So the product takes the stored tensors themselves, and where a look-up shares its table with a product, it is the look-up that gets a reshaped one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from recompress.errors import InputError
from recompress.models.packed import Packed, PackedEmbedding, PackedLinear, place
from recompress.runtimes.blocks import Blocks, blocks_of

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

DOMAIN = "com.microsoft"


def in_floats(network: PreTrainedModel) -> PreTrainedModel:
    """A copy whose packed matrices are floats again; an output layer that is tied to packed embeddings shares its numbers with them."""
    plain = copy.deepcopy(network)
    tables: dict[int, nn.Parameter] = {}
    for name, module in list(plain.named_modules()):
        if isinstance(module, Packed):
            weight = tables.setdefault(module.codes.data_ptr(), nn.Parameter(module.matrix(), requires_grad=False))
            place(plain, name, _plain(module, weight))
    return plain


def _plain(module: Packed, weight: nn.Parameter) -> nn.Module:
    rows, columns = weight.shape
    if isinstance(module, PackedLinear):
        linear = nn.Linear(columns, rows, bias=module.bias is not None, device="meta")
        linear.weight, linear.bias = weight, module.bias  # type: ignore[assignment]
        return linear
    return nn.Embedding(rows, columns, _weight=weight)


def packed_blocks(network: PreTrainedModel) -> dict[str, Blocks]:
    """The blocks of each packed matrix by name, one that two modules share once. Raises what ``blocks_of`` raises, and ``InputError`` where nothing is packed."""
    blocks: dict[int, tuple[str, Blocks]] = {}
    for name, module in network.named_modules():
        if not isinstance(module, Packed) or module.codes.data_ptr() in blocks:
            continue
        found = blocks_of(name, module)
        if isinstance(module, PackedEmbedding) and found.padded:
            raise InputError(f"{name} has {found.columns} columns, and ONNX Runtime looks up in blocks of 16, 32, 64 …; pack it without embeddings")
        blocks[module.codes.data_ptr()] = (name, found)
    if not blocks:
        raise InputError("no weight of this model is packed; put rtn, gptq, awq, signround, qat or mixed_precision before")
    return dict(blocks.values())


def use_blocks(model: onnx.ModelProto, network: PreTrainedModel, blocks: Mapping[str, Blocks], accuracy_level: int) -> None:
    """Replace, in place, all products with and look-ups in the matrices that ``blocks`` names, and drop what nobody uses any more."""
    import onnx

    graph = model.graph
    rows_of, columns_of = _found(graph, network, blocks)
    nodes: list[onnx.NodeProto] = []
    used: set[str] = set()
    for node in graph.node:
        name = _matrix_of(node, rows_of, columns_of)
        if name is None:
            nodes.append(node)
            continue
        used.add(name)
        nodes.extend(product(node, name, blocks[name], accuracy_level) if node.op_type == "MatMul" else look_up(node, name, blocks[name]))
    _put(graph, nodes, [tensor for name in blocks if name in used for tensor in tensors_of(name, blocks[name])])
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def users_of(model: onnx.ModelProto, network: PreTrainedModel, blocks: Mapping[str, Blocks]) -> list[str]:
    """The names of the nodes that ``use_blocks`` would replace."""
    rows_of, columns_of = _found(model.graph, network, blocks)
    return [node.name for node in model.graph.node if _matrix_of(node, rows_of, columns_of) is not None]


def _found(graph: onnx.GraphProto, network: PreTrainedModel, blocks: Mapping[str, Blocks]) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors that are a matrix of ``blocks``, by their names: as it is, to be looked up in, and turned, to be multiplied with."""
    import onnx

    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 2}
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in stored}
    names: dict[str, str] = {}
    for name in blocks:
        weight = network.get_submodule(name).matrix().numpy()
        names |= {_digest(weight): name, f"{_digest(np.ascontiguousarray(weight.T))} turned": name}
    rows_of = {name: names[key] for name, values in stored.items() if (key := _digest(values)) in names}
    columns_of = {name: names[key] for name, values in stored.items() if (key := f"{_digest(values)} turned") in names}
    return rows_of, columns_of | {name: rows_of[source] for name, source in turned.items() if source in rows_of}


def _matrix_of(node: onnx.NodeProto, rows_of: Mapping[str, str], columns_of: Mapping[str, str]) -> str | None:
    """The matrix that a node looks up in or multiplies with, by its name in the network."""
    if node.op_type == "MatMul":
        return columns_of.get(node.input[1])
    return rows_of.get(node.input[0]) if node.op_type == "Gather" else None


def _digest(values: np.ndarray[Any, Any]) -> str:
    return f"{values.dtype} {values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def _operands(name: str, blocks: Blocks) -> list[str]:
    return [f"{name}_scale", *([f"{name}_zero_point"] if blocks.zeros is not None else [])]


def product(node: onnx.NodeProto, name: str, blocks: Blocks, accuracy_level: int) -> Iterator[onnx.NodeProto]:
    import onnx

    received = node.input[0]
    if blocks.inputs is not None:
        yield onnx.helper.make_node("Mul", [received, f"{name}_inputs_scale"], [f"{node.output[0]}_widened"])
        received = f"{node.output[0]}_widened"
    rows, form = len(blocks.codes), {"bits": blocks.bits, "block_size": blocks.block_size}
    operands = [received, f"{name}_codes", *_operands(name, blocks)]
    yield onnx.helper.make_node(
        "MatMulNBits", operands, [node.output[0]], node.name, domain=DOMAIN, K=blocks.columns, N=rows, accuracy_level=accuracy_level, **form
    )


def look_up(node: onnx.NodeProto, name: str, blocks: Blocks) -> Iterator[onnx.NodeProto]:
    import onnx

    table = f"{node.output[0]}_table"
    yield onnx.helper.make_node("Reshape", [f"{name}_codes", f"{name}_shape"], [table])
    form = {"bits": blocks.bits, "block_size": blocks.block_size, "gather_axis": 0, "quantize_axis": 1}
    yield onnx.helper.make_node("GatherBlockQuantized", [table, node.input[1], *_operands(name, blocks)], [node.output[0]], node.name, domain=DOMAIN, **form)


def settle_tables(model: onnx.ModelProto) -> None:
    """Store, in place, the codes that look-ups get reshaped in the shape that they are read in, for runtimes that look up in nothing but what is stored."""
    import onnx

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    tables = {node.input[0] for node in graph.node if node.op_type == "GatherBlockQuantized"}
    turned = [node for node in graph.node if node.op_type == "Reshape" and node.output[0] in tables and {*node.input} <= stored.keys()]
    read = [onnx.numpy_helper.to_array(stored[node.input[0]]).reshape(onnx.numpy_helper.to_array(stored[node.input[1]])) for node in turned]
    tensors = [onnx.numpy_helper.from_array(codes, node.output[0]) for codes, node in zip(read, turned, strict=True)]
    _put(graph, [node for node in graph.node if node not in turned], tensors)


def tensors_of(name: str, blocks: Blocks) -> Iterator[onnx.TensorProto]:
    import onnx

    rows = len(blocks.codes)
    stored: dict[str, Any] = {"codes": blocks.codes, "scale": blocks.scales, "zero_point": blocks.zeros, "inputs_scale": blocks.inputs}
    for what, values in stored.items():
        if values is not None:
            yield onnx.numpy_helper.from_array(values.contiguous().numpy(), f"{name}_{what}")
    yield onnx.numpy_helper.from_array(np.array([rows, -1], dtype=np.int64), f"{name}_shape")


def _put(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> None:
    """These nodes, without turned matrices that none of them uses, and of the old and new tensors those that are used."""
    used = {name for node in nodes for name in node.input} | {given.name for given in graph.output}
    nodes = [node for node in nodes if node.op_type != "Transpose" or node.output[0] in used]
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in (*graph.initializer, *tensors) if tensor.name in used]
    nodes, tensors = copy.deepcopy(nodes), copy.deepcopy(tensors)  # they belong to the lists that are emptied next
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
