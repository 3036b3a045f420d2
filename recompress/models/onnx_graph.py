"""ONNX graphs: read with suspicion, stripped of what tells where they were made, and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recompress.errors import InputError, IntegrityError

if TYPE_CHECKING:
    import onnx


ON_THE_WAY = ("DequantizeLinear", "Transpose", "Identity", "Cast", "Reshape")
"""Nodes that may stand between a stored weight and what computes with it."""
IN_BLOCKS = ("MatMulNBits", "GatherBlockQuantized")
"""Nodes that compute with codes in packed blocks."""


class Weights(NamedTuple):
    """Numbers in the constant operands of a graph's matrix products and look-ups."""

    products: int
    products_int8: int
    lookups: int
    lookups_int8: int
    bits_used: int
    """Bits that the largest code of a matrix product in 8 bits needs, its sign included; 0 where there is none."""
    products_packed: int = 0
    """Those whose codes are multiplied in blocks, in 4 or 8 bits."""
    lookups_packed: int = 0


LARGEST = (1 << 31) - 1
"""Bytes of one protobuf message, which holds a graph with all its weights."""


def check_fits(numbers: int, what: str) -> None:
    """Raises ``InputError`` where so many 32-bit numbers are more than a graph can hold."""
    if 4 * numbers > LARGEST:
        raise InputError(
            f"{what} has {numbers:,} weights, {4 * numbers / 2**30:.2f} GiB in 32 bits, and an ONNX graph in one file holds less than 2 GiB; make it smaller first "
            "(trim_vocabulary, factorize_embeddings, prune_structure), or stay on torch (rtn, gptq, llm_int8)"
        )


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Stripped, and in the one order that protobuf calls deterministic."""
    strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Remove doc strings, metadata and noted shapes: stack traces with the paths of the machine that made it, and shapes that are wrong as soon as a
    quantizer turns a matrix round."""
    import onnx

    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.ClearField("doc_string")
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        graph.ClearField("doc_string")
        tensors = (*graph.initializer, *graph.input, *graph.output) if isinstance(graph, onnx.GraphProto) else ()
        for part in (*graph.node, *tensors):
            del part.metadata_props[:]
            part.ClearField("doc_string")


def read_graph(path: Path) -> onnx.ModelProto:
    """Raises ``InputError`` when it is missing, and ``IntegrityError`` when it is broken or keeps weights in other files."""
    import onnx

    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise classes of their own
        raise IntegrityError(f"{path} is cut off or broken: {str(error).splitlines()[0]}") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise IntegrityError(f"{path} keeps weights in other files; a model directory holds one file of weights")
    return model


def _tensors(part: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor inside a message, however deep: initializers, constants, those of branches, and sparse ones."""
    import onnx

    for kind, value in part.ListFields():
        if kind.message_type is not None:
            for inner in value if isinstance(value, Sequence) else [value]:
                if isinstance(inner, onnx.TensorProto):
                    yield inner
                else:
                    yield from _tensors(inner)


def check_graph(path: Path) -> None:
    """Raises what ``read_graph`` raises."""
    read_graph(path)


def weights_in(model: onnx.ModelProto) -> Weights:
    """Count the constant weights of matrix products (MatMul, Gemm and their integer forms) and of look-ups (Gather), and those of them in 8 bits or in packed
    blocks, also where they become floats or are turned round on their way to the product."""
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    eight = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    counts = {"products": 0, "products_int8": 0, "lookups": 0, "lookups_int8": 0, "products_packed": 0, "lookups_packed": 0}
    packed = _packed_numbers(model)
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ON_THE_WAY}
    seen: set[str] = set()
    largest = 0
    for node in model.graph.node:
        kind, operand = ("lookups", 0) if node.op_type in ("Gather", "GatherBlockQuantized") else ("products", 1)
        if node.op_type not in ("MatMul", "Gemm", "MatMulInteger", "Gather", *IN_BLOCKS):
            continue
        name = node.input[operand]
        while name in sources:
            name = sources[name]
        if name not in stored:
            continue
        tensor = stored[name]
        if tensor.name in seen or len(tensor.dims) < 2:
            continue
        seen.add(tensor.name)
        size = packed.get(tensor.name, int(np.prod(tensor.dims)))
        counts[kind] += size
        if tensor.name in packed:
            counts[f"{kind}_packed"] += size
            continue
        counts[f"{kind}_int8"] += size * (tensor.data_type in eight)
        if kind == "products" and tensor.data_type in eight:
            largest = max(largest, int(np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int16)).max()))
    return Weights(**counts, bits_used=0 if not largest else 7 if largest <= 64 else 8)


def numbers_in(model: onnx.ModelProto) -> int:
    """Numbers in the stored weights, of any precision; without the scales and zero points of quantization and without shapes."""
    import onnx

    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    packed = _packed_numbers(model)
    weights = (t for t in model.graph.initializer if t.data_type in kinds and t.dims and not t.name.endswith(("_scale", "_zero_point")))
    return sum(packed.get(tensor.name, int(np.prod(tensor.dims))) for tensor in weights)


def _packed_numbers(model: onnx.ModelProto) -> dict[str, int]:
    """For each tensor of codes that nodes take in blocks, the numbers that it stands for: of 4 bits there are two to a byte, and the last block of a row may
    hold more codes than the row has columns."""
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ON_THE_WAY}
    packed: dict[str, int] = {}
    for node in model.graph.node:
        form = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "MatMulNBits":
            packed[node.input[1]] = form["N"] * form["K"]
        elif node.op_type == "GatherBlockQuantized":
            name = node.input[0] if node.input[0] in dims else sources.get(node.input[0], "")
            packed.setdefault(name, int(np.prod(dims.get(name, (0,)))) * 8 // form.get("bits", 4))
    return packed
