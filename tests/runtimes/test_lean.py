"""Lean graphs answer as the network does and compute less: the last layer for one token where the head reads one, a small mask."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.onnx_graph import read_graph
from recompress.models.padding import padding_of
from recompress.models.shared_layers import share
from recompress.runtimes import export, open_runtime, outlines
from recompress.runtimes.asking import logits_of, reads_first
from recompress.runtimes.batches import one_answer
from recompress.runtimes.lean import first_token_alone, lean_mask, make_lean
from recompress.runtimes.lean.mask import SMALL_MASK
from recompress.runtimes.onnx_runtime import SLOWER
from tests import families, six

pytestmark = pytest.mark.usefixtures("one_thread")
READ_FIRST = ("roberta", "distilbert", "bert-pairs", "roberta-labels", "distilbert-number")
READ_ALL = ("bert", "bert-reader", "gpt2", "gpt2-classifier")
LENGTHS = (1, 2, 7, six.LENGTH)


@contextmanager
def as_exported() -> Iterator[list[onnx.ModelProto]]:
    """While the block runs, graphs are not made lean; the list gets them as they come, shapes and all."""
    graphs: list[onnx.ModelProto] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "make_lean", lambda model: graphs.append(copy.deepcopy(model)))
        yield graphs


_graphs: dict[str, onnx.ModelProto] = {}


def graph_of(family: str) -> onnx.ModelProto:
    """What the exporter makes of a tiny network, with its shapes."""
    if family not in _graphs:
        with as_exported() as graphs:
            export.export_graph(six.checkpoint_of(family).torch_network, segments="pairs" in family)
        _graphs[family] = graphs[0]
    return copy.deepcopy(_graphs[family])


def given_to(network: Any, names: list[str], batch: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens: of each text but the first the end is padding."""
    draw = np.random.default_rng(length)
    mask = np.ones((batch, length), dtype=np.int64)
    for i in range(1, batch):
        mask[i, max(1, length - i) :] = 0
    ids = np.where(mask, draw.integers(3, network.config.vocab_size, (batch, length)), padding_of(network))
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (np.arange(length) > length // 2) * mask}
    return {name: every[name] for name in names}


def session_of(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_answers(model: onnx.ModelProto, network: Any) -> None:
    """As the network's, for texts of one token to as many as there may be, alone and beside others."""
    session = session_of(model)
    names = [value.name for value in session.get_inputs()]
    for length in LENGTHS:
        for batch in (1, 3):
            given = given_to(network, names, batch, length)
            with torch.inference_mode():
                expected = logits_of(network, {name: torch.from_numpy(rows) for name, rows in given.items()}).numpy()
            answered = one_answer(session.run(None, given))
            np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def tokens_computed(model: onnx.ModelProto, network: Any, length: int = 7) -> list[int]:
    """Of each product with a matrix in the layers, the number of tokens that it is made of."""
    model = copy.deepcopy(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    products = [node.output[0] for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in stored]
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in products)
    session = session_of(model)
    computed = session.run(None, given_to(network, [value.name for value in session.get_inputs()], 2, length))
    return [rows.size // rows.shape[-1] // 2 for rows in computed if rows.ndim == 3 or len(rows) > 2]  # two rows are the two texts', which a head answers


@pytest.mark.parametrize(("family", "expected"), [*((family, True) for family in READ_FIRST), *((family, False) for family in READ_ALL)])
def test_who_reads_the_first_token(family: str, expected: bool) -> None:
    assert reads_first(six.checkpoint_of(family).torch_network) is expected


@pytest.mark.parametrize("family", [READ_FIRST[0], *(pytest.param(family, marks=pytest.mark.long) for family in READ_FIRST[1:])])
def test_the_last_layer_is_computed_for_the_first_token_and_answers_stay(family: str) -> None:
    """Four of its six products: query, attention's output, neurons in and out."""
    network, model = six.checkpoint_of(family).torch_network, graph_of(family)
    before = tokens_computed(model, network)
    assert set(before) == {7}
    make_lean(model)
    onnx.checker.check_model(model)
    after = tokens_computed(model, network)
    assert after == [7] * (len(before) - 6) + after[-6:]
    assert sorted(after[-6:]) == [1, 1, 1, 1, 7, 7]
    check_answers(model, network)


@pytest.mark.parametrize("family", [READ_ALL[0], *(pytest.param(family, marks=pytest.mark.long) for family in READ_ALL[1:])])
def test_where_every_token_is_read_every_token_is_computed(family: str) -> None:
    network, model = six.checkpoint_of(family).torch_network, graph_of(family)
    assert first_token_alone(model) == 0
    make_lean(model)
    assert set(tokens_computed(model, network)) == {7}
    check_answers(model, network)


@pytest.mark.parametrize(
    ("family", "expected"), [("roberta", True), ("bert", True), *(pytest.param(name, False, marks=pytest.mark.long) for name in ("gpt2", "llama"))]
)
def test_the_mask_is_computed_once_and_small_and_a_decoders_is_left(family: str, expected: bool) -> None:
    model = graph_of(family)
    nodes = len(model.graph.node)
    assert lean_mask(model) == (six.LAYERS if expected else 0)
    readers = [node for node in model.graph.node if SMALL_MASK in node.input]
    assert len(readers) == (six.LAYERS if expected else 0)
    assert len(model.graph.node) <= nodes - (10 if expected else 0)
    if expected:
        session = session_of(onnx.utils.Extractor(model).extract_model(["attention_mask"], [SMALL_MASK]))
        [small] = session.run(None, {"attention_mask": np.array([[1, 1, 0], [0, 1, 1]])})
        least = np.finfo(np.float32).min
        assert small.tolist() == [[[[0, 0, least]]], [[[least, 0, 0]]]]


def graph(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], shapes: dict[str, list[Any]], **stored: np.ndarray
) -> onnx.ModelProto:
    kinds = {"attention_mask": TensorProto.INT64}
    values = [
        [helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape) for name, shape in group.items()] for group in (inputs, outputs, shapes)
    ]
    made = helper.make_graph(nodes, "g", *values[:2], [numpy_helper.from_array(array, name) for name, array in stored.items()], value_info=values[2])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


FREE = ["b", "n"]


def a_head(
    read: str, weight: np.ndarray, more: list[onnx.NodeProto] | None = None, outputs: dict[str, list[Any]] | None = None, index: int = 0
) -> onnx.ModelProto:
    """x @ w, an activation, and a head that reads one token of it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        *(more or []),
        helper.make_node("Gather", [read, "index"], ["y"], axis=1),
    ]
    shapes = {name: [*FREE, 4] for name in ("h", "t", "s")}
    return graph(nodes, {"x": [*FREE, 4]}, {"y": ["b", 4]} | (outputs or {}), shapes, w=weight, index=np.array(index))


def ran(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return list(session_of(model).run(None, {"x": x}))


@pytest.mark.parametrize(
    ("what", "model", "count"),
    [
        ("alone", a_head("t", np.eye(4, dtype=np.float32)), 2),
        ("the last token", a_head("t", np.eye(4, dtype=np.float32), index=-1), 0),
        ("the second token", a_head("t", np.eye(4, dtype=np.float32), index=1), 0),
        ("read by an output as well", a_head("t", np.eye(4, dtype=np.float32), outputs={"t": [*FREE, 4]}), 0),
        ("read by an output below", a_head("t", np.eye(4, dtype=np.float32), outputs={"h": [*FREE, 4]}), 1),
        ("tokens that mix", a_head("s", np.eye(4, dtype=np.float32), [helper.make_node("Softmax", ["t"], ["s"], axis=1)]), 0),
        ("tokens that do not", a_head("s", np.eye(4, dtype=np.float32), [helper.make_node("Softmax", ["t"], ["s"], axis=2)]), 3),
        ("a node that nobody knows", a_head("s", np.eye(4, dtype=np.float32), [helper.make_node("CumSum", ["t", "index"], ["s"])]), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_node_is_cut_whose_other_tokens_anybody_reads(what: str, model: onnx.ModelProto, count: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    before = ran(model, x)
    assert first_token_alone(model) == count, what
    onnx.checker.check_model(model)
    for was, now in zip(before, ran(model, x), strict=True):
        np.testing.assert_array_equal(now, was)


@pytest.mark.parametrize(("factor", "expected"), [(0, 1), (1, 0)])
def test_a_mask_that_does_more_than_hide_padding_is_left(factor: int, expected: int) -> None:
    """One that adds a number in the rows of padding, and only there."""
    nodes = [
        helper.make_node("Unsqueeze", ["attention_mask", "axes"], ["small"]),
        helper.make_node("Cast", ["small"], ["text"], to=TensorProto.BOOL),
        helper.make_node("Where", ["text", "zero", "least"], ["row"]),
        helper.make_node("Unsqueeze", ["attention_mask", "column"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "float"], ["padding"]),
        helper.make_node("Mul", ["padding", "factor"], ["nothing"]),
        helper.make_node("Add", ["row", "nothing"], ["mask"]),
        helper.make_node("Add", ["x", "mask"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["y"], axis=-1),
    ]
    square = ["b", 1, "n", "n"]
    model = graph(
        nodes,
        {"attention_mask": FREE, "x": square},
        {"y": square},
        {"mask": square, "sum": square},
        axes=np.array([1, 2]),
        column=np.array([1, 3]),
        zero=np.float32(0),
        least=np.finfo(np.float32).min,
        one=np.float32(1),
        factor=np.float32(factor),
    )
    assert lean_mask(model) == expected
    given = {"attention_mask": np.array([[1, 1, 0]]), "x": np.zeros((1, 1, 3, 3), np.float32)}
    np.testing.assert_allclose(session_of(model).run(None, given)[0], np.broadcast_to(np.float32([0.5, 0.5, 0]), (1, 1, 3, 3)))


def quantized(checkpoint: Checkpoint, place: Path, name: str = "dynamic_int8", **dials: Any) -> onnx.ModelProto:
    save(checkpoint, place / "source")
    inputs = families.inputs_of(place / f"work-{name}", "text-classification", 24)
    run_step(name, get_method(name).config(**dials), place / "source", place / name, inputs)
    return read_graph(place / name / "model.onnx")


@pytest.mark.parametrize("name", ["dynamic_int8", "static_int8"])
def test_the_codes_of_a_lean_graph_are_those_of_the_exporters(name: str, tmp_path: Path) -> None:
    checkpoint = families.checkpoint_of("roberta", "text-classification")
    codes = []
    with as_exported():
        codes.append(codes_in(quantized(checkpoint, tmp_path / "plain", name)))
    codes.append(codes_in(quantized(checkpoint, tmp_path / "lean", name)))
    assert codes[0] == codes[1]
    assert len(codes[0]) >= 6 * families.LAYERS


def codes_in(model: onnx.ModelProto) -> list[tuple[tuple[int, ...], bytes]]:
    kinds = (TensorProto.INT8, TensorProto.UINT8)
    return sorted((tuple(t.dims), numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer if t.data_type in kinds and len(t.dims) == 2)


def test_onnx_runtime_is_asked_to_leave_out_what_is_slower(tmp_path: Path) -> None:
    """And does: its optimized graph of the same model has none of the nodes."""
    quantized(families.checkpoint_of("roberta", "text-classification"), tmp_path)
    options = open_runtime(tmp_path / "dynamic_int8").session.get_session_options()  # type: ignore[attr-defined]
    entry = "optimization.disable_specified_optimizers"
    assert options.get_session_config_entry(entry) == ";".join(SLOWER)
    fused = []
    for left_out in ("", options.get_session_config_entry(entry)):
        again = onnxruntime.SessionOptions()
        again.log_severity_level, again.optimized_model_filepath = 3, str(tmp_path / "optimized.onnx")
        again.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        again.add_session_config_entry(entry, left_out)
        onnxruntime.InferenceSession(str(tmp_path / "dynamic_int8" / "model.onnx"), again, providers=["CPUExecutionProvider"])
        fused.append(sum(node.op_type == "SkipLayerNormalization" for node in onnx.load(tmp_path / "optimized.onnx").graph.node))
    assert fused[0] > 0 == fused[1]


def test_layers_with_one_set_of_weights_are_cut_where_the_last_one_stands() -> None:
    outlines._kept.clear()
    checkpoint = six.checkpoint_of("roberta")
    network = checkpoint.torch_network
    share(network, (0, 0))
    assert len(layers_of(network)) == 2
    model = export.export_graph(network)
    assert sorted(tokens_computed(model, network)) == [1] * 4 + [7] * 8
    check_answers(model, network)
