"""The mask, once and small: [batch, 1, 1, length], where the exporter writes a row for each token, [batch, 1, length, length].

    M[b, 0, i, j] = 0 where text[b, j], else the least float        the same for all i, so that one i is enough

What makes such a mask is other nodes with each version of transformers and torch. So it is not known by its nodes but by what it computes: the part of the graph
that makes it reads no weights, and is asked about masks with every kind of gap, a text without a single token included; where its answers are those of the formula, to
the last bit, the formula's three nodes take its place. A decoder's mask, which hides what comes later, is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recompress.runtimes.lean.wiring import Wiring, drop_unread, insert

if TYPE_CHECKING:
    import onnx

MASK = "attention_mask"
SMALL_MASK = "small_mask"
ASKED: tuple[list[list[int]], ...] = ([[1]], [[1, 1, 1]], [[1, 1, 0, 0], [1, 1, 1, 1]], [[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
"""One token; all of a text; padding; gaps, no token at all, and one."""


def lean_mask(model: onnx.ModelProto) -> int:
    """Rewrite ``model`` in place, and give the number of sums that take the small mask now; 0 where the pattern is not there."""
    wiring = Wiring(model)
    if wiring.shape(MASK) is None:
        return 0
    replaced = {name for name in _added_before_softmax(wiring) if is_formula(model, wiring, name)}
    if not replaced:
        return 0
    count = sum(name in replaced for node in model.graph.node if node.op_type == "Add" for name in node.input)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in replaced:
                node.input[i] = SMALL_MASK
    insert(model.graph, {-1: _formula(model, wiring)})
    drop_unread(model)
    return count


def _added_before_softmax(wiring: Wiring) -> list[str]:
    """Tensors [batch, 1, length, length] that are added to what a Softmax reads."""
    sums = [wiring.makers.get(node.input[0]) for node in wiring.graph.node if node.op_type == "Softmax"]
    names = dict.fromkeys(name for node in sums if node is not None and node.op_type == "Add" for name in node.input)
    shapes = {name: wiring.shape(name) or () for name in names}
    return [name for name, shape in shapes.items() if len(shape) == 4 and shape[1] == 1 and shape[2] == shape[3] != 1 and name in wiring.makers]


def is_formula(model: onnx.ModelProto, wiring: Wiring, name: str) -> bool:
    """Whether a tensor is what the formula says, for every mask of ``ASKED``."""
    import onnxruntime

    part = _part(model, wiring, name)
    if part is None:
        return False
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for rows in ASKED:
        mask = np.array(rows, dtype=np.int64)
        expected = np.where(mask[:, None, None, :] != 0, np.float32(0), np.finfo(np.float32).min)
        given = {value.name: mask if value.name == MASK else np.arange(mask.size).reshape(mask.shape) for value in session.get_inputs()}
        answered = session.run(None, given)[0]
        if answered.dtype != np.float32 or not np.array_equal(answered, np.broadcast_to(expected, answered.shape)):
            return False
    return True


def _part(model: onnx.ModelProto, wiring: Wiring, name: str) -> onnx.ModelProto | None:
    """The part of the graph that makes a tensor; None where it computes with weights."""
    import onnx

    needed, constants = {name}, []
    nodes: list[onnx.NodeProto] = []
    for node in reversed(wiring.graph.node):
        if not needed.isdisjoint(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    for tensor in wiring.graph.initializer:
        if tensor.name in needed:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                return None
            constants.append(tensor)
    inputs = [value for value in wiring.graph.input if value.name in needed]
    graph = onnx.helper.make_graph(nodes, "mask", inputs, [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)], constants)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _formula(model: onnx.ModelProto, wiring: Wiring) -> list[onnx.NodeProto]:
    import onnx

    text, sizes = f"{SMALL_MASK}_text", wiring.shape(MASK) or ()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(SMALL_MASK, onnx.TensorProto.FLOAT, [sizes[0], 1, 1, sizes[1]]))
    seen, hidden = (wiring.store(f"{SMALL_MASK}_{what}", np.array(number, np.float32)) for what, number in (("seen", 0), ("hidden", np.finfo(np.float32).min)))
    return [
        onnx.helper.make_node("Unsqueeze", [MASK, wiring.store(f"{SMALL_MASK}_axes", [1, 2])], [f"{text}_number"]),
        onnx.helper.make_node("Cast", [f"{text}_number"], [text], to=onnx.TensorProto.BOOL),
        onnx.helper.make_node("Where", [text, seen, hidden], [SMALL_MASK]),
    ]
