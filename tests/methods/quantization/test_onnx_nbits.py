"""Packed weights on ONNX Runtime: the same codes in the file, nearly the same answers, and a proof that notices every way in which it could be otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from recompress.errors import EffectMissing, InputError
from recompress.methods.chain import check_chain
from recompress.methods.quantization import onnx_nbits
from recompress.methods.quantization.onnx_nbits import OnnxNbits, prove
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.checkpoint import load, save
from recompress.models.onnx_graph import numbers_in, read_graph, weights_in, write_graph
from recompress.models.packed import PackedEmbedding, packed_linears
from recompress.runtimes import open_runtime
from recompress.runtimes.batches import answer
from recompress.settings.base import Settings
from tests import six

FAMILY = "roberta"


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("onnx_nbits")


def packed(place: Path, method: str = "rtn", family: str = FAMILY, **dials: Any) -> Path:
    """A tiny model whose weights ``method`` packed."""
    save(six.checkpoint_of(family), place / "source")
    settings = {"group_size": 16, **dials} if "group_size" in get_method(method).config.model_fields else dials
    run_step(method, get_method(method).config(**settings), place / "source", place / "packed", six.inputs_of(family, place / "work"))
    return place / "packed"


def export(place: Path, family: str = FAMILY, **dials: Any) -> StepReport:
    return run_step("onnx_nbits", OnnxNbits(**dials), place / "packed", place / "onnx", six.inputs_of(family, place / "work"))


def answers(place: Path, family: str = FAMILY) -> list[np.ndarray[Any, Any]]:
    return list(open_runtime(place).logits(six.features_of(load(place), family)))


@pytest.mark.parametrize(
    ("bits", "symmetric", "embeddings"), [(4, False, False), *(pytest.param(*rest, marks=pytest.mark.long) for rest in ((8, False, False), (3, True, True)))]
)
def test_codes_are_counted_as_weights_and_take_the_bytes_that_they_should(bits: int, symmetric: bool, embeddings: bool, tmp_path: Path) -> None:
    source = packed(tmp_path, bits=bits, symmetric=symmetric, embeddings=embeddings)
    report = export(tmp_path)
    network, model = load(source).torch_network, read_graph(tmp_path / "onnx" / "model.onnx")
    weights = weights_in(model)
    tables = [module for module in network.modules() if isinstance(module, PackedEmbedding)]
    assert weights.products_packed == sum(linear.rows * linear.columns_count for linear in packed_linears(network).values())
    assert weights.lookups_packed == sum(table.rows * table.columns_count for table in tables)
    assert (weights.products_int8, weights.lookups_int8) == (0, 0)
    assert weights.products > weights.products_packed  # the head stays in floats
    assert report.parameters == report.parameters_before == numbers_in(model)
    codes = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.name.endswith("_codes"))
    assert codes == (weights.products_packed + weights.lookups_packed) * (8 if bits == 8 else 4) // 8
    assert any(tensor.name.endswith("_zero_point") for tensor in model.graph.initializer) is not symmetric
    assert load(tmp_path / "onnx").info.onnx == {"int8": False, "pad_id": 0, "accuracy_level": 4}


@pytest.mark.parametrize(
    ("method", "dials"),
    [
        ("rtn", {"group_size": None}),
        ("awq", {"calibration_examples": 8, "clip": True}),
        ("signround", {"steps": 16}),
        ("mixed_precision", {"average_bits": 5.0}),
    ],
)
def test_what_other_methods_packed_is_multiplied_too(method: str, dials: dict[str, Any], tmp_path: Path) -> None:
    """Rows with one scale, which are cut into blocks with that scale; inputs that are widened; codes of 4 and 8 bits in one network."""
    packed(tmp_path, method, **dials)
    export(tmp_path, accuracy_level=1)
    for was, now in zip(answers(tmp_path / "packed"), answers(tmp_path / "onnx"), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_texts_are_filled_up_with_the_padding_token_of_the_model(tmp_path: Path) -> None:
    packed(tmp_path, family="llama-classifier", bits=8)
    export(tmp_path, "llama-classifier")
    checkpoint = load(tmp_path / "packed")
    assert load(tmp_path / "onnx").info.onnx["pad_id"] == checkpoint.tokenizer.pad_token_id != 0


@pytest.mark.long
def test_layers_that_share_their_weights_share_their_codes(tmp_path: Path) -> None:
    save(six.checkpoint_of(FAMILY), tmp_path / "source")
    inputs = six.inputs_of(FAMILY, tmp_path / "work")
    run_step("share_layers", get_method("share_layers").config(), tmp_path / "source", tmp_path / "shared", inputs)
    run_step("rtn", get_method("rtn").config(group_size=16), tmp_path / "shared", tmp_path / "packed", inputs)
    export(tmp_path)
    model = read_graph(tmp_path / "onnx" / "model.onnx")
    codes = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_codes")]
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == six.LAYERS * len(codes)


@pytest.mark.long
@pytest.mark.parametrize("family", six.DECODERS)
def test_a_tied_table_is_stored_once_and_multiplied_as_it_lies_in_the_file(family: str, tmp_path: Path) -> None:
    """Behind a node that a session would have to fold, the int8 kernel would be wrong where nothing is folded."""
    packed(tmp_path, family=family, embeddings=True)
    export(tmp_path, family)
    model = read_graph(tmp_path / "onnx" / "model.onnx")
    stored = {tensor.name for tensor in model.graph.initializer}
    [look_up] = [node for node in model.graph.node if node.op_type == "GatherBlockQuantized"]
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert all({*node.input[1:]} <= stored for node in products)
    assert [node.input[2] for node in products].count(look_up.input[2]) == 1
    for was, now in zip(answers(tmp_path / "packed", family), answers(tmp_path / "onnx", family), strict=True):
        assert 0 < np.abs(now - was).max() < 0.1 * np.abs(was).max()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("level", [1, 4])
def test_a_text_is_answered_alone_as_it_is_among_others(level: int, bits: int, tmp_path: Path) -> None:
    """Rounded inputs, too: each token has ranges of its own. Where one range serves a whole batch, answers move."""
    packed(tmp_path, bits=bits)
    export(tmp_path, accuracy_level=level)
    run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "source", tmp_path / "int8", six.inputs_of(FAMILY, tmp_path / "work"))
    assert moved(tmp_path / "onnx") < 1e-4
    assert moved(tmp_path / "int8", graph=True) > 1e-4
    assert moved(tmp_path / "int8") == 0, "such a graph is asked one text at a time"


def moved(place: Path, *, graph: bool = False) -> float:
    """How far answers move when texts are asked together; of the ``graph`` itself, whoever asks it."""
    features = six.features_of(load(place), FAMILY, count=12)
    runtime: Any = open_runtime(place)
    ask = (lambda some: answer(some, runtime._run, runtime.pad_id, 32)) if graph else runtime.logits
    together = ask(features)
    alone = [ask([feature])[0] for feature in features]
    return max(float(np.abs(one - other).max()) for one, other in zip(alone, together, strict=True))


def swap_nibbles(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    codes = stored[nodes[0].input[1]]
    codes[:] = codes % 16 * 16 + codes // 16


def drop_zero_points(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    del nodes[0].input[3]


def turn_scales(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    scales = stored[nodes[0].input[2]]
    scales[:] = scales.T.reshape(scales.shape)


def one_code(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    stored[nodes[0].input[1]][0, 0, 0] ^= 1


def other_level(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    next(attribute for attribute in nodes[0].attribute if attribute.name == "accuracy_level").i = 1


def exchange_products(stored: dict[str, np.ndarray[Any, Any]], nodes: list[onnx.NodeProto]) -> None:
    one, other = nodes[:2]
    for place in (1, 2, 3):
        one.input[place], other.input[place] = other.input[place], one.input[place]


@pytest.mark.parametrize(
    ("spoil", "claim"),
    [
        (swap_nibbles, "packed matrices that are not multiplied as they were packed"),
        (drop_zero_points, "packed matrices that are not multiplied as they were packed"),
        (turn_scales, "packed matrices that are not multiplied as they were packed"),
        (one_code, "packed matrices that are not multiplied as they were packed"),
        (other_level, "products at another accuracy level"),
        (exchange_products, "relative error of the outputs, inputs as floats"),
    ],
)
def test_a_graph_that_holds_something_else_is_noticed(spoil: Callable[..., None], claim: str, tmp_path: Path) -> None:
    packed(tmp_path)
    export(tmp_path)
    path = tmp_path / "onnx" / "model.onnx"
    model = read_graph(path)
    stored = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    spoil(stored, [node for node in model.graph.node if node.op_type == "MatMulNBits"])
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name], tensor.name))
    write_graph(model, path)
    claims = {c.what: c for c in prove(load(tmp_path / "packed"), load(tmp_path / "onnx"), OnnxNbits(), six.inputs_of(FAMILY, tmp_path / "work"))}
    assert not claims[claim].kept


def test_a_graph_in_floats_that_calls_itself_packed_fails_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path, embeddings=True)
    monkeypatch.setattr(onnx_nbits, "use_blocks", lambda *_: None)
    with pytest.raises(
        EffectMissing, match=r"not multiplied as they were packed: asked for 0, measured 12; .*not looked up.*measured 1; .*in floats: .*measured 13"
    ):
        export(tmp_path)
    assert not (tmp_path / "onnx").exists()


def steps(*named: tuple[str, dict[str, Any]]) -> list[tuple[str, Settings]]:
    return [(name, get_method(name).config(**dials)) for name, dials in named]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([], "onnx_nbits needs a model on the packed runtime|needs weights that are packed"),
        ([("finetune", {})], "onnx_nbits needs weights that are packed; put a step that packs them, like rtn or gptq, right before it"),
        ([("dynamic_int8", {})], "onnx_nbits cannot follow dynamic_int8"),
        ([("codebook", {})], "onnx_nbits cannot follow codebook: its weights lie on no even steps"),
        ([("vector", {})], "onnx_nbits cannot follow vector: its weights lie on no even steps"),
        ([("llm_int8", {})], "onnx_nbits cannot follow llm_int8: it keeps columns in 16 bits"),
        ([("rtn", {"group_size": 24})], "cannot take groups of 24 columns, which ONNX Runtime has no blocks for; choose a group_size of 16, 32, 64"),
    ],
)
def test_what_cannot_be_multiplied_is_refused_before_anything_runs(before: list[tuple[str, dict[str, Any]]], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_chain(steps(*before, ("onnx_nbits", {})), "text-classification", "bert")
    assert "\n" not in str(caught.value)


def test_what_can_be_multiplied_is_not_refused() -> None:
    for size in (None, 16, 48, 128):
        check_chain(steps(("rtn", {"group_size": size}), ("onnx_nbits", {})), "text-classification", "bert")


def test_groups_that_are_too_short_are_refused_by_the_step_too(tmp_path: Path) -> None:
    packed(tmp_path, group_size=8)
    with pytest.raises(InputError, match="has groups of 8 columns, and ONNX Runtime multiplies blocks of 16, 32, 64"):
        export(tmp_path)
    assert not (tmp_path / "onnx").exists()
