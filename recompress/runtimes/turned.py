"""Constant matrices of a graph, turned when it is made and not each time that it runs.

torch's exporter leaves the weight of a linear layer as it is stored, ``[out, in]``, behind a Transpose when several nodes share it. The graph then turns it at
each run, and ONNX Runtime's quantizers, which look for products with constants, pass it over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def turn_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, each constant that is used through one and the same Transpose, and nowhere else, by what comes out of it."""
    import onnx

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            users.setdefault(name, []).append(node)
    renamed: dict[str, str] = {}
    gone: list[onnx.NodeProto] = []
    for name, tensor in stored.items():
        nodes = users.get(name, [])
        orders = {_order(node) for node in nodes}
        if not nodes or len(orders) > 1 or None in orders or any(node.output[0] == given.name for node in nodes for given in graph.output):
            continue
        made = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor).transpose(orders.pop() or None))
        tensor.CopyFrom(onnx.numpy_helper.from_array(made, name))
        renamed.update({node.output[0]: name for node in nodes})
        gone.extend(nodes)
    for node in gone:
        graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def _order(node: onnx.NodeProto) -> tuple[int, ...] | None:
    """The order of axes of a Transpose, empty for the usual one; ``None`` for any other node."""
    if node.op_type != "Transpose":
        return None
    return next((tuple(one.ints) for one in node.attribute if one.name == "perm"), ())
