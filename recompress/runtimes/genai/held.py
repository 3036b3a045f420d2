"""What the graph of a decoder holds, read back from the file by the definition of its operators, and by the names that the network gives its matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recompress.models.onnx_blocks import stored_weight

if TYPE_CHECKING:
    import onnx

CODES, FACTORS, WEIGHT = "_codes", "_inputs_scale", ".weight"
PARTS = (CODES, "_scale", "_zero_point", FACTORS)
"""What a matrix in codes consists of."""


class Held(NamedTuple):
    """A tensor of the network, as the graph has it."""

    kind: str
    """``fp32``, or ``int4`` or ``int8`` for codes."""
    numbers: Float[np.ndarray, "..."]
    """``[out, in]`` of a matrix; of codes what they stand for, times what their inputs are multiplied with."""
    stored_bytes: int
    levels: tuple[int, ...] = ()
    """What inputs are multiplied as in each product with it: 1, floats; 4, rounded to 8 bits."""


def held_in(model: onnx.ModelProto) -> dict[str, Held]:
    """Every tensor by its name in the network: matrices by that of their module with ``.weight``, whatever they are stored as."""
    import onnx

    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    held = {name: Held("fp32", values, values.nbytes) for name, values in stored.items() if name.endswith((WEIGHT, ".bias"))}
    for name, node, others in _with_codes(model):
        values = stored_weight(node, stored, f"{name}{CODES}")
        if f"{name}{FACTORS}" in stored:
            values = values * stored[f"{name}{FACTORS}"]
        bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        size = sum(stored[f"{name}{part}"].nbytes for part in PARTS if f"{name}{part}" in stored)
        levels = tuple(attribute.i for other in others for attribute in other.attribute if attribute.name == "accuracy_level")
        held[f"{name}{WEIGHT}"] = Held(f"int{bits}", values, size, levels)
    return held


def _with_codes(model: onnx.ModelProto) -> Iterator[tuple[str, Any, list[Any]]]:
    """For each matrix in codes its name, one node that says how they are meant, and all that compute with them."""
    tables = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    uses: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            uses.setdefault(node.input[1], []).append(node)
        elif node.op_type == "GatherBlockQuantized":
            uses.setdefault(tables[node.input[0]], []).append(node)
    return ((codes.removesuffix(CODES), nodes[0], nodes) for codes, nodes in uses.items())


def bytes_of(held: Mapping[str, Held]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.stored_bytes for tensor in held.values())
