"""What an int8 graph is, seen in its file and in its answers: the scales of its matrices, what they stand for, what its ranges cut off, how near its answers are.

answers      sum (l' - l)^2 / max(sum (l - mean l)^2, n LEAST^2)    l: the n logits before, on the probe
cut off      the share of the inputs of matrix products, over the probe, that lie beyond the range stored for them
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from recompress.methods.probe import probe_features
from recompress.methods.registry import Claim, Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.models.onnx_graph import read_graph
from recompress.runtimes.batches import Feature, pad_batch, with_all

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")
ANSWERS = 0.5
"""Outliers stretch ranges, so that 8 bits may cost much (a fine-tuned MiniLM stays below 0.01); a graph that says anything is at 1 and more."""
LEAST = 0.1
"""Of a logit: answers that lie less far apart decide nothing, because a tenth of a logit moves a probability by 0.025 at most (a quarter, the steepest that a softmax
is, of 0.1). Rounding is measured against this where the answers themselves say less, as those of a head that was never trained."""
NODE_BYTES = 512
"""What a node of the graph takes at most."""
CUT_OFF = 0.001
"""Rounding one layer moves the inputs of the next: so many of them may leave the range that the text had in floats."""


class Product(NamedTuple):
    """A matrix product whose weights are stored in 8 bits."""

    scales: int
    """Scales of its matrix."""
    values: Float[np.ndarray, "out in"]
    """What the codes stand for."""

    @property
    def per_output(self) -> bool:
        return self.scales == len(self.values)


def products_of(model: onnx.ModelProto) -> Iterator[Product]:
    """All of them, in the order of the graph."""
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored}
    for node in (node for node in model.graph.node if node.op_type in PRODUCTS):
        name = node.input[1]
        if node.op_type == "MatMulInteger" and name in stored:
            base = name.removesuffix("_quantized")
            codes, scale, zero, axis = name, f"{base}_scale", f"{base}_zero_point", 1
        elif name in floats:
            codes, scale, *rest = floats[name].input
            zero = rest[0] if rest else ""
            axis = next((attribute.i for attribute in floats[name].attribute if attribute.name == "axis"), 1)
        else:
            continue
        scales = onnx.numpy_helper.to_array(stored[scale]).reshape(-1)
        zeros = onnx.numpy_helper.to_array(stored[zero]).reshape(-1).astype(np.float32) if zero else np.zeros(1, np.float32)
        shape = [-1 if i == axis % 2 else 1 for i in range(2)]
        values = (onnx.numpy_helper.to_array(stored[codes]).astype(np.float32) - zeros.reshape(shape)) * scales.reshape(shape)
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        yield Product(len(scales), values if turned else values.T)


def scales_claim(model: onnx.ModelProto, *, per_channel: bool) -> Claim:
    """A scale for each output of each matrix, where that was asked."""
    wide = [product for product in products_of(model) if len(product.values) > 1]
    return Claim("matrices with a scale for each output", len(wide) if per_channel else 0, sum(product.per_output for product in wide))


def answers_claim(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> Claim:
    """The graph's answers on the probe against those of the network in floats."""
    from recompress.runtimes import runtime_of

    features = probe_features(before, inputs)
    was, now = (np.concatenate([np.atleast_2d(row) for row in runtime_of(checkpoint).logits(features)]) for checkpoint in (before, after))
    size = max(float(np.square(was - was.mean(0)).sum()), was.size * LEAST**2)
    return Claim("error of the answers, in shares of how far they lie apart", 0, float(np.square(was - now).sum()) / size, ANSWERS, "at most")


def cut_off_claim(before: Checkpoint, path: Path, inputs: Inputs) -> Claim:
    """The inputs of all products, computed by the graph itself on the probe, against the ranges that it stores for them."""
    return Claim("share of the products' inputs that ranges cut off", 0, cut_off(read_graph(path), probe_features(before, inputs)), CUT_OFF, "at most")


def cut_off(model: onnx.ModelProto, features: Sequence[Feature]) -> float:
    """The share of all numbers that are rounded by stored ranges and lie more than a step beyond them."""
    import onnx
    import onnxruntime

    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[1] in stored}
    if not nodes:
        return 0.0  # another claim counts the products that have no range
    given = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in nodes if name not in given)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    beyond = count = 0
    for feature in features:
        row = pad_batch([feature], 0)
        for values, node in zip(session.run(list(nodes), with_all(row, names)), nodes.values(), strict=True):
            scale, zero = float(stored[node.input[1]]), int(stored[node.input[2]])
            beyond += int(((values < (-1 - zero) * scale) | (values > (256 - zero) * scale)).sum())
            count += values.size
    return beyond / max(1, count)
