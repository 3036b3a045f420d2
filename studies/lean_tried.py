"""Rewrites that do not pay: tried by ``studies.lean``, and no part of the project.

query, key and value in one product     MatMul(x, [Wq Wk Wv]) + [bq bk bv], then Split: the columns have the codes that they had
sums in floats                          what quantize_static rounds is read as floats by all but products: nearer to the network, but a table of 8 bits, behind whose look-up
                                        the pair of nodes is missing then, is turned into floats at each run
fused attention                         com.microsoft's MultiHeadAttention in the place of what lies between the three products and the attention's output layer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recompress.runtimes.lean.wiring import Wiring, drop_unread, insert

if TYPE_CHECKING:
    import onnx


def packed_products(model: onnx.ModelProto) -> int:
    """Products with constants that read one tensor, as one."""
    import onnx

    wiring = Wiring(model)
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in wiring.stored:
            groups.setdefault(node.input[0], []).append(node)
    groups = {name: nodes for name, nodes in groups.items() if len(nodes) > 1}
    inserted, gone, place_of = {}, [], {node.output[0]: i for i, node in enumerate(model.graph.node)}
    for name, nodes in groups.items():
        sums = [wiring.readers[node.output[0]][0][0] for node in nodes]
        matrices = [onnx.numpy_helper.to_array(wiring.stored[node.input[1]]) for node in nodes]
        biases = [next(onnx.numpy_helper.to_array(wiring.stored[one]) for one in node.input if one in wiring.stored) for node in sums]
        packed = f"{name}_packed"
        stored = [
            wiring.store(f"{packed}_{what}", values)
            for what, values in (("weight", np.concatenate(matrices, 1)), ("bias", np.concatenate(biases)), ("sizes", np.array([len(one) for one in biases])))
        ]
        inserted[place_of[nodes[0].output[0]]] = [
            onnx.helper.make_node("MatMul", [name, stored[0]], [f"{packed}_product"], f"{packed}_product"),
            onnx.helper.make_node("Add", [f"{packed}_product", stored[1]], [f"{packed}_sum"], f"{packed}_sum"),
            onnx.helper.make_node("Split", [f"{packed}_sum", stored[2]], [node.output[0] for node in sums], packed, axis=-1),
        ]
        gone += [*nodes, *sums]
    for node in gone:
        node.output[0] = f"{node.output[0]}_gone"
    insert(model.graph, inserted)
    drop_unread(model)
    return len(groups)


def fused_attention(model: onnx.ModelProto, floats: onnx.ModelProto) -> int:
    """One node for each attention; ``floats`` is the same graph with the shapes of its tensors."""
    import onnx

    wiring, shapes = Wiring(model), Wiring(floats)
    places = {node.output[0]: i for i, node in enumerate(model.graph.node)}
    inserted: dict[int, list[onnx.NodeProto]] = {}
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        scores = wiring.makers[wiring.makers[softmax.input[0]].input[0]]
        product = wiring.makers[scores.input[0]]
        weighed = wiring.readers[softmax.output[0]][0][0]
        joined = wiring.readers[wiring.readers[weighed.output[0]][0][0].output[0]][0][0]
        read = [wiring.makers[wiring.makers[name].input[0]].input[0] for name in (*product.input, weighed.input[1])]
        heads = (shapes.shape(product.input[0]) or ())[1]
        factor = wiring.constant(scores.input[1])
        assert factor is not None
        output, joined.output[0] = joined.output[0], f"{joined.output[0]}_gone"
        form = {"num_heads": int(heads), "scale": float(factor), "mask_filter_value": float(np.finfo(np.float32).min)}
        inserted[places[output]] = [onnx.helper.make_node("MultiHeadAttention", [*read, "", "text"], [output], domain="com.microsoft", **form)]
    count = len(inserted)
    inserted[-1] = [onnx.helper.make_node("Cast", ["attention_mask"], ["text"], to=onnx.TensorProto.INT32)]
    insert(model.graph, inserted)
    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    drop_unread(model)
    return count


def sums_in_floats(model: onnx.ModelProto) -> int:
    """Everybody but products reads what was there before it was rounded."""
    makers = {name: node for node in model.graph.node for name in node.output}
    count = 0
    for node in model.graph.node:
        for i, name in enumerate(node.input) if node.op_type not in ("MatMul", "Gemm") else ():
            back = makers.get(name)
            there = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
            if there is not None and there.op_type == "QuantizeLinear":
                node.input[i] = there.input[0]
                count += 1
    return count
