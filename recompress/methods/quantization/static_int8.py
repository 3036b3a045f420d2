"""Static int8: weights and the inputs of matrix products in 8 bits, with ranges of the inputs taken once, from calibration text.

    W[:, o] ~ s[o] * q[:, o]              q = round(W / s) in [-127, 127],  s[o] = max|W[:, o]| / 127
    x       ~ t * (u - z)                 u = clamp(round(x / t) + z, 0, 255),  t = (max x - min x) / 255 over all calibration text

What lies beyond the range at run time is cut off: inputs with outliers suffer. ``smooth`` moves these into the weights first (``recompress.methods.quantization.smooth``).
Rows are seen without padding. Sums, norms, softmax and the products inside the attention stay in floats, and so does an output layer that is tied to the
embeddings, which computes with what their 8 bits stand for.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4; Xiao et al. 2023 (SmoothQuant), arXiv:2211.10438, eq. 4; ONNX Runtime's ``quantize_static`` (QDQ).
The result is an ONNX graph: the step leaves the torch runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.methods.calibration import calibration_features
from recompress.methods.quantization.int8 import Int8, check, exported, int8_claims, onnx_settings, reduces, table_of
from recompress.methods.quantization.int8_graph import answers_claim, cut_off_claim, products_of
from recompress.methods.quantization.int8_tables import check_steps
from recompress.methods.quantization.smooth import smooth, smoothed
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import ALL_ARCHITECTURES
from recompress.models.checkpoint import ONNX_FILE, Checkpoint
from recompress.models.files import write_config
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.progress import bar
from recompress.runtimes.batches import Batch, Feature, pad_batch
from recompress.runtimes.export import quiet_export

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Gemm")
FOLDED = 0.1
"""8 bits move a matrix by about a hundredth of its length, 7 bits with one scale for all of it by several."""


class StaticInt8(Int8):
    """What is stored in 8 bits, and what ranges are taken from."""

    smooth: Annotated[float, Field(ge=0, le=1)] | None = None
    """SmoothQuant's alpha (0.5 in the paper): how much of what is hard to round is moved from inputs into weights; nothing is moved when left out."""
    calibration_examples: Annotated[int, Field(ge=1)] = 128
    """Training examples, or windows of running text, that are looked at."""


class Rows:
    """Calibration text as ONNX Runtime asks for it: one row at a time, so that nothing is padded."""

    def __init__(self, features: Sequence[Feature], label: str) -> None:
        self.progress = bar(label, len(features), "row")
        self.rows: Iterator[Batch] = (pad_batch([feature], 0) for feature in features)

    def get_next(self) -> Batch | None:
        row = next(self.rows, None)
        self.progress.update(row is not None)
        return row


def chosen_nodes(model: onnx.ModelProto, *, embeddings: bool) -> list[onnx.NodeProto]:
    """Products with constant weights and, where asked, look-ups in constant tables."""
    stored = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return [node for node in model.graph.node if _constant(node, stored) and (node.op_type in PRODUCTS or embeddings)]


def _constant(node: onnx.NodeProto, stored: set[str]) -> bool:
    return (node.op_type in PRODUCTS and node.input[1] in stored) or (node.op_type == "Gather" and node.input[0] in stored)


def ranged_products(model: onnx.ModelProto) -> tuple[int, int]:
    """Matrix products whose weights are constant, also those that round their inputs as they come, and those of them whose inputs are rounded by a stored range."""
    stored = {tensor.name for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}

    def through(name: str, kind: str) -> str:
        node = producers.get(name)
        return node.input[0] if node is not None and node.op_type == kind and {*node.input[1:]} <= stored else ""

    products = [
        node
        for node in model.graph.node
        if node.op_type in (*PRODUCTS, "MatMulInteger") and (through(node.input[1], "DequantizeLinear") or node.input[1]) in stored
    ]
    return len(products), sum(bool(through(through(node.input[0], "DequantizeLinear"), "QuantizeLinear")) for node in products)


def prove(before: Checkpoint, after: Checkpoint, config: StaticInt8, inputs: Inputs) -> list[Claim]:
    """What all int8 graphs promise, the inputs of all products rounded by stored ranges that hold what flows there, answers close to those in floats, and
    scales folded wherever they can be."""
    assert isinstance(after.network, Path)
    products, ranged = ranged_products(read_graph(after.network))
    return [
        *int8_claims(before, after, config),
        Claim("products with calibrated inputs", products, ranged),
        cut_off_claim(before, after.network, inputs),
        answers_claim(before, after, inputs),
        *([] if config.smooth is None else [_folds_claim(before, after.network, config, inputs)]),
    ]


def _folds_claim(before: Checkpoint, path: Path, config: StaticInt8, inputs: Inputs) -> Claim:
    """The scales are computed anew from the calibration text, and what weights and norms become with them is looked for in the graph."""
    assert config.smooth is not None
    model = read_graph(path)
    from onnx import numpy_helper

    matrices = [product.values for product in products_of(model)]
    vectors = [values for tensor in model.graph.initializer if (values := numpy_helper.to_array(tensor)).ndim == 1 and values.dtype == np.float32]
    features = calibration_features(before, inputs, config.calibration_examples)
    expected = [values.numpy() for values in smoothed(before.torch_network, features, config.smooth)]
    farthest = max(_distance(values, matrices if values.ndim == 2 else vectors) for values in expected)
    return Claim("weights with scales folded in, farthest from any in the graph", 0, farthest, FOLDED, "at most")


def _distance(values: Float[np.ndarray, "..."], candidates: Sequence[Float[np.ndarray, "..."]]) -> float:
    """To the nearest of the candidates, in units of its own length."""
    every = [float(np.linalg.norm(values - other)) for other in candidates if other.shape == values.shape]
    return min(every, default=np.inf) / float(np.linalg.norm(values))


def round_graph(model: onnx.ModelProto, path: Path, rows: Rows, config: StaticInt8, kept: Sequence[str] = ()) -> None:
    """Write to ``path`` the graph with its weights and inputs in 8 bits, but for the nodes ``kept``; ranges are those of ``rows``."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    chosen = [node for node in chosen_nodes(model, embeddings=bool(config.embeddings)) if node.name not in kept]
    quantize_static(
        model,
        path,
        rows,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=sorted({node.op_type for node in chosen}),
        nodes_to_quantize=[node.name for node in chosen],
        per_channel=config.per_channel,
        reduce_range=reduces(config),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"OpTypesToExcludeOutputQuantization": [*PRODUCTS, "Gather"], "QuantizeBias": False},
    )


@method(
    "static_int8",
    StaticInt8,
    family="quantization",
    prove=prove,
    check=check,
    check_steps=check_steps,
    needs=("calibration",),
    gives="onnx",
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
    source="Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 4; Xiao et al. 2023, arXiv:2211.10438, eq. 4; ONNX Runtime quantize_static",
    shrinks="bytes, to about a quarter",
    speeds_up="CPUs with VNNI",
)
def quantize_static_int8(checkpoint: Checkpoint, config: StaticInt8, inputs: Inputs) -> Checkpoint:
    """Weights and inputs in 8 bits, ranges from calibration text; runs on ONNX Runtime."""
    network, label = checkpoint.torch_network, inputs.label or "static_int8"
    features = calibration_features(checkpoint, inputs, config.calibration_examples)
    folds = 0 if config.smooth is None else smooth(network, features, config.smooth)
    table = table_of(network, config)
    model = exported(network if table is None else table.network, segments=checkpoint.reads_segments)
    path = inputs.workdir / ONNX_FILE
    rows = Rows(features, label)
    with quiet_export(), rows.progress:
        round_graph(model, path, rows, config, () if table is None else table.kept(model))
    write_graph(read_graph(path), path)
    if table is not None:
        table.write(path)
    write_config(network, inputs.workdir)
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, onnx={**onnx_settings(network, config), "folds": folds}))
