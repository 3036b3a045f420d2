"""ONNX with packed weights: the codes of ``rtn``, ``gptq``, ``awq``, ``signround``, ``qat`` and ``mixed_precision``, multiplied by a runtime instead of unpacked for each use.

    y[o] = sum_b scale[o, b] * sum_{i in b} (code[o, i] - zero[o, b]) * x[i]         b: a block of columns with one scale

No weight is rounded again: codes, scales and zeros are those of the step before, in blocks of a power of two of columns; packed embeddings are looked up in
their codes. ``accuracy_level`` says what inputs are multiplied as: floats (1), or rounded to 8 bits (4), each token and each block by itself,

    x[i] ~ t * u[i],     t = max_{i in b} |x[i]| / 127,     u = round(x / t)

so that what a text is answered does not depend on its neighbours in a batch, as it does where a whole input has one range (``dynamic_int8``).
Source: ONNX Runtime's contrib operators MatMulNBits and GatherBlockQuantized (com.microsoft, version 1); the rounding of inputs is the runtime's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.probe import probe_features
from recompress.methods.quantization.int8_graph import NODE_BYTES
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import ONNX_FILE, Checkpoint
from recompress.models.files import distinct_tensors, write_config
from recompress.models.onnx_blocks import stored_weight
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.models.packed import Packed, PackedEmbedding, PackedLinear
from recompress.runtimes import runtime_of
from recompress.runtimes.blocks import BLOCKS
from recompress.runtimes.export import CLOSE, export_graph
from recompress.runtimes.nbits import in_floats, packed_blocks, use_blocks
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from recompress.runtimes import Feature, Runtime

ROUNDED = 0.1
"""How far the outputs may lie from those of the packed network where inputs are rounded to 8 bits, as a share of their size."""


class OnnxNbits(Settings):
    """How codes are multiplied."""

    accuracy_level: Literal[1, 4] = 4
    """What inputs are multiplied as: 4, rounded to 8 bits, block by block; 1, as floats, with the packed network's answers, but slower (8-bit codes by far)."""


class Product(NamedTuple):
    """What the file says that a node multiplies with."""

    weight: np.ndarray[Any, np.dtype[np.float32]]
    accuracy_level: int


def check_steps(config: OnnxNbits, steps: Sequence[tuple[str, Settings]]) -> None:
    """Raises ``InputError`` when the step before is known to leave groups that are no blocks."""
    size = getattr(steps[-1][1], "group_size", None) if steps else None
    if size is not None and size % BLOCKS[0]:
        raise InputError(f"onnx_nbits cannot take groups of {size} columns, which ONNX Runtime has no blocks for; choose a group_size of 16, 32, 64 …")


def products_in(model: onnx.ModelProto) -> tuple[list[Product], list[np.ndarray[Any, np.dtype[np.float32]]]]:
    """What all ``MatMulNBits`` of a graph multiply with, a scaling of their inputs included, and what all ``GatherBlockQuantized`` look up in."""
    import onnx

    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    products, tables = [], []
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            weight = stored_weight(node, stored, node.input[1])
            before = makers.get(node.input[0])
            if before is not None and before.op_type == "Mul" and before.input[1].endswith("_inputs_scale"):
                weight = weight * stored[before.input[1]]
            products.append(Product(weight, next(attribute.i for attribute in node.attribute if attribute.name == "accuracy_level")))
        elif node.op_type == "GatherBlockQuantized":
            tables.append(stored_weight(node, stored, makers[node.input[0]].input[0]))
    return products, tables


def left_in_floats(model: onnx.ModelProto, packed: Sequence[Packed]) -> int:
    """Stored matrices of floats that are the numbers of a packed one, turned or not."""
    import onnx

    matrices = [module.matrix().numpy() for module in packed]
    known = {(weight.shape, weight.tobytes()) for matrix in matrices for weight in (matrix, np.ascontiguousarray(matrix.T))}
    floats = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2)
    return sum((values.shape, values.tobytes()) in known for values in floats)


def missing(packed: Sequence[Packed], weights: Sequence[np.ndarray[Any, Any]]) -> int:
    """Packed matrices that are none of ``weights``, number for number."""
    left = {weight.tobytes() for weight in weights}
    return sum(module.matrix().numpy().tobytes() not in left for module in packed)


def prove(before: Checkpoint, after: Checkpoint, config: OnnxNbits, inputs: Inputs) -> list[Claim]:
    """Every packed matrix multiplied or looked up as it was packed, nothing of it left in floats, the bytes that follow, and the same answers."""
    return [*_stored(before, after, config), *_answered(before, after, config, probe_features(before, inputs), inputs.workdir)]


def _stored(before: Checkpoint, after: Checkpoint, config: OnnxNbits) -> Iterator[Claim]:
    assert isinstance(after.network, Path)
    network, model = before.torch_network, read_graph(after.network)
    linears = [module for module in network.modules() if isinstance(module, PackedLinear)]
    embeddings = [module for module in network.modules() if isinstance(module, PackedEmbedding)]
    products, tables = products_in(model)
    blocks = packed_blocks(network)
    floats = sum(tensor.numel() for name, tensor in distinct_tensors(network).items() if not _is_packed(network, name))
    expected = 4 * floats + sum(matrix.stored_bytes for matrix in blocks.values())
    yield Claim("packed matrices that are not multiplied as they were packed", 0, missing(linears, [product.weight for product in products]))
    yield Claim("packed embeddings that are not looked up as they were packed", 0, missing(embeddings, tables))
    yield Claim("packed matrices that stand there in floats", 0, left_in_floats(model, [*linears, *embeddings]))
    yield Claim("products at another accuracy level", 0, sum(product.accuracy_level != config.accuracy_level for product in products))
    yield Claim("bytes of model.onnx", expected, after.network.stat().st_size, NODE_BYTES * len(model.graph.node))


def _is_packed(network: Any, name: str) -> bool:
    module, _, tensor = name.rpartition(".")
    return tensor != "bias" and isinstance(network.get_submodule(module), Packed)


def _answered(before: Checkpoint, after: Checkpoint, config: OnnxNbits, features: list[Feature], workdir: Path) -> Iterator[Claim]:
    """The file's graph with inputs as floats has to answer like the packed network, whatever the level is; rounded, nearly so."""
    expected = runtime_of(before).logits(features)
    yield Claim("relative error of the outputs, inputs as floats", CLOSE, _error(expected, _with_floats(after, workdir).logits(features)), bound="at most")
    if config.accuracy_level != 1:
        yield Claim("relative error of the outputs, inputs rounded", ROUNDED, _error(expected, runtime_of(after).logits(features)), bound="at most")


def _with_floats(after: Checkpoint, workdir: Path) -> Runtime:
    assert isinstance(after.network, Path)
    model = read_graph(after.network)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    path = workdir / "floats" / ONNX_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_graph(model, path)
    return runtime_of(replace(after, network=path))


def _error(expected: Sequence[np.ndarray[Any, Any]], answered: Sequence[np.ndarray[Any, Any]]) -> float:
    size = sum(float(np.square(was).sum()) for was in expected) or 1.0
    error = sum(float(np.square(was - now).sum()) for was, now in zip(expected, answered, strict=True))
    return float((error / size) ** 0.5)


WHY = "its weights lie on no even steps, which is all that ONNX Runtime multiplies"


@method(
    "onnx_nbits",
    OnnxNbits,
    family="quantization",
    prove=prove,
    takes="packed",
    gives="onnx",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="ONNX Runtime's contrib operators MatMulNBits and GatherBlockQuantized",
    shrinks="what has to be installed: no torch",
    speeds_up="CPUs with VNNI, where weights are packed in 4 or 8 bits",
    not_after={"codebook": WHY, "vector": WHY, "llm_int8": "it keeps columns in 16 bits, which ONNX Runtime has no blocks for"},
    check_steps=check_steps,
)
def export_nbits(checkpoint: Checkpoint, config: OnnxNbits, inputs: Inputs) -> Checkpoint:
    """Packed weights as an ONNX graph that multiplies their codes, none of them rounded again; runs on ONNX Runtime."""
    network = checkpoint.torch_network
    blocks = packed_blocks(network)
    model = export_graph(in_floats(network), segments=checkpoint.reads_segments)
    use_blocks(model, network, blocks, config.accuracy_level)
    path = inputs.workdir / ONNX_FILE
    write_graph(model, path)
    write_config(network, inputs.workdir)
    info = {"int8": False, "pad_id": network.config.pad_token_id or 0, **config.model_dump()}
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, onnx=info))
