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
    """Replace, in place, what a Transpose makes of a constant by a constant.

    One that is used in no other way is turned itself. One that products use as it is, too (a factor of tied embeddings), gets a turned copy, so that both can be
    quantized; a table that is looked up in, of all constants the largest, stays as it is.
    """
    import onnx

    graph = model.graph
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            users.setdefault(name, []).append(node)
    given_out = {given.name for given in graph.output}
    renamed: dict[str, str] = {}
    gone: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        nodes = users.get(tensor.name, [])
        turning = [node for node in nodes if node.op_type == "Transpose"]
        others = [node for node in nodes if node.op_type != "Transpose"]
        orders = {_order(node) for node in turning}
        if len(orders) != 1 or any(node.op_type == "Gather" for node in others) or any(node.output[0] in given_out for node in turning):
            continue
        values = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor).transpose(orders.pop() or None))
        name = f"{tensor.name}_turned" if others else tensor.name
        turned = onnx.numpy_helper.from_array(values, name)
        if others:
            graph.initializer.append(turned)
        else:
            tensor.CopyFrom(turned)
        renamed.update({node.output[0]: name for node in turning})
        gone.extend(turning)
    for node in gone:
        graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def _order(node: onnx.NodeProto) -> tuple[int, ...]:
    """The order of axes of a Transpose, empty for the usual one."""
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), ())
