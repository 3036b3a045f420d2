"""Decoders for ONNX Runtime GenAI: codes by hand, packed codes that are kept, shapes that differ by layer, and what no graph can say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.errors import InputError
from recompress.integrity.digest import sha256_directory
from recompress.methods.chain import check_chain
from recompress.methods.quantization import genai_file
from recompress.methods.quantization.onnx_genai import OnnxGenai, beyond, block_size_for, bytes_for
from recompress.methods.quantization.onnx_genai_nbits import OnnxGenaiNbits
from recompress.methods.registry import get_method
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint, load
from recompress.models.onnx_graph import read_graph
from recompress.models.shared_layers import share
from recompress.models.surgery import keep_heads, keep_layers, keep_neurons
from recompress.runtimes import open_runtime, runtime_of
from recompress.runtimes.genai import folder
from recompress.runtimes.genai.held import held_in
from recompress.settings.base import Settings
from tests import six
from tests.methods.quantization.decoder_steps import source_of, step

pytest.importorskip("onnxruntime_genai")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("onnx_genai")


def tensors_in(place: Path) -> dict[str, np.ndarray[Any, Any]]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in read_graph(place / "model.onnx").graph.initializer}


def by_hand(tensors: dict[str, np.ndarray[Any, Any]], name: str, bits: int, size: int) -> np.ndarray[Any, Any]:
    """Number after number, by the definition of MatMulNBits."""
    codes, scales, zeros = (tensors.get(f"{name}_{part}") for part in ("codes", "scale", "zero_point"))
    assert codes is not None
    assert scales is not None
    rows = []
    for row in range(len(codes)):
        numbers = []
        for column in range(codes.shape[1] * size):
            block, at = divmod(column, size)
            code = int(codes[row, block, at]) if bits == 8 else (int(codes[row, block, at // 2]) >> (4 * (at % 2))) % 16
            zero = 1 << (bits - 1)
            if zeros is not None:
                line = zeros.reshape(len(codes), -1)[row]
                zero = int(line[block]) if bits == 8 else (int(line[block // 2]) >> (4 * (block % 2))) % 16
            numbers.append(float(scales.reshape(len(codes), -1)[row, block]) * (code - zero))
        rows.append(numbers)
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize(("symmetric", "size"), [(True, 32), (False, 16)])
@pytest.mark.parametrize("family", six.DECODERS)
def test_each_weight_lies_on_its_nearest_step(family: str, symmetric: bool, size: int, tmp_path: Path) -> None:
    """In 4 bits in the layers, in 8 in the embeddings; and the output layer that is tied to these takes the same tensors."""
    source = source_of(family, tmp_path)
    step("onnx_genai", source, tmp_path / "made", family, symmetric=symmetric, block_size=size, scales="minmax")
    network, tensors = load(source).torch_network, tensors_in(tmp_path / "made")
    names = {id(module): name for name, module in network.named_modules()}
    layer, table = layers_of(network)[1].neurons_out, network.get_input_embeddings()
    for module, bits in ((layer, 4), (table, 8)):
        weight = genai_file.weight_of(module).numpy()
        stored = by_hand(tensors, names[id(module)], bits, size)
        blocks = weight.reshape(len(weight), -1, size)
        span = 2 * np.abs(blocks).max(-1) if symmetric else np.maximum(blocks.max(-1), 0) - np.minimum(blocks.min(-1), 0)
        error = np.abs(weight - stored).reshape(blocks.shape)
        assert (error <= 0.51 * span[..., None] / ((1 << bits) - 1)).all()
        assert np.median(error / span[..., None]) > 0.1 / ((1 << bits) - 1), "nothing was rounded"
        np.testing.assert_array_equal(held_in(read_graph(tmp_path / "made" / "model.onnx"))[f"{names[id(module)]}.weight"].numbers, stored)
    assert not any("lm_head" in name for name in tensors)
    assert any(name.endswith("_zero_point") for name in tensors) is not symmetric


def test_searched_steps_lie_nearer_and_embeddings_in_8_bits_need_none(tmp_path: Path) -> None:
    source, held = source_of("llama", tmp_path), {}
    for scales in ("minmax", "mse"):
        step("onnx_genai", source, tmp_path / scales, scales=scales)
        held[scales] = held_in(read_graph(tmp_path / scales / "model.onnx"))
    own = load(source).torch_network.state_dict()
    lost = {
        scales: sum(np.square(own[name].numpy() - tensor.numbers).sum() for name, tensor in made.items() if tensor.kind == "int4")
        for scales, made in held.items()
    }
    assert 0 < lost["mse"] < 0.95 * lost["minmax"]
    table = "model.embed_tokens.weight"
    np.testing.assert_array_equal(held["mse"][table].numbers, held["minmax"][table].numbers)


@pytest.mark.parametrize("embeddings", ["int4", "int8", "fp32"])
def test_what_is_stored_how_is_what_was_asked(embeddings: str, tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, tie_word_embeddings=False)
    report = step("onnx_genai", source, tmp_path / "made", embeddings=embeddings, accuracy_level=1)
    held = held_in(read_graph(tmp_path / "made" / "model.onnx"))
    kinds = {name: tensor.kind for name, tensor in held.items() if tensor.numbers.ndim == 2}
    assert {kind for name, kind in kinds.items() if "layers" in name} == {"int4"}
    assert {kind for name, kind in kinds.items() if "layers" not in name} == {embeddings}
    assert held["lm_head.weight"].levels == (() if embeddings == "fp32" else (1,))
    assert report.parameters == report.parameters_before
    assert load(tmp_path / "made").info.onnx["embeddings"] == embeddings


def test_bytes_of_a_matrix() -> None:
    assert bytes_for(10, 64, "fp32", OnnxGenai()) == 2560
    assert bytes_for(10, 64, "int4", OnnxGenai()) == 10 * (32 + 2 * 4)
    assert bytes_for(10, 96, "int4", OnnxGenai(symmetric=False)) == 10 * (48 + 3 * 4 + 2)
    assert bytes_for(10, 64, "int8", OnnxGenai(block_size=64)) == 10 * (64 + 4)
    assert bytes_for(10, 40, "int4", OnnxGenai()) == 1600, "rows of 40 are no whole blocks of 16"
    assert [block_size_for(columns, 128) for columns in (256, 96, 48, 40)] == [128, 32, 16, None]


def test_how_far_a_weight_may_lie_from_what_it_was() -> None:
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
    for config, steps in ((OnnxGenai(), (2 / 15, 2 / 15)), (OnnxGenai(symmetric=False), (1 / 15, 1 / 15))):
        limit = np.repeat(steps, 32)[None]
        assert beyond(weight, weight + 0.49 * limit.astype(np.float32), "int4", config) == 0
        assert beyond(weight, weight + 0.55 * limit.astype(np.float32), "int4", config) == 64
    assert (beyond(weight, weight, "fp32", OnnxGenai()), beyond(weight, weight + 1e-3, "fp32", OnnxGenai())) == (0, 64)


CHAINS: dict[str, tuple[str, dict[str, Any]]] = {
    "rtn": ("rtn", {"group_size": 16, "embeddings": True}),
    "gptq-symmetric": ("gptq", {"group_size": 32, "symmetric": True, "calibration_examples": 8}),
    "awq": ("awq", {"group_size": 32, "calibration_examples": 8}),
    "rows": ("rtn", {"bits": 8, "symmetric": True}),
    "three bits": ("rtn", {"bits": 3, "group_size": 32, "embeddings": True, "symmetric": True}),
    "mixed": ("mixed_precision", {"average_bits": 5.0, "group_size": 16}),
}


@pytest.mark.parametrize("family", six.DECODERS)
@pytest.mark.parametrize("name", CHAINS)
def test_what_other_methods_packed_is_multiplied_as_it_is(name: str, family: str, tmp_path: Path) -> None:
    method, dials = CHAINS[name]
    step(method, source_of(family, tmp_path), tmp_path / "packed", family, **dials)
    report = step("onnx_genai_nbits", tmp_path / "packed", tmp_path / "made", family, accuracy_level=1)
    assert report.parameters == report.parameters_before
    packed = load(tmp_path / "packed")
    features = six.features_of(packed, family)
    for was, now in zip(runtime_of(packed).logits(features), open_runtime(tmp_path / "made").logits(features), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "dials", "said"),
    [
        ("rtn", {"group_size": 8}, "groups of 8 columns"),
        ("codebook", {}, "no even steps"),
        ("vector", {}, "no even steps"),
        ("llm_int8", {}, "keeps columns in 16 bits"),
        ("finetune", {}, "needs weights that are packed"),
    ],
)
def test_chains_that_no_block_can_say_are_refused_before_anything_runs(method: str, dials: dict[str, Any], said: str) -> None:
    steps: list[tuple[str, Settings]] = [(method, get_method(method).config(**dials)), ("onnx_genai_nbits", OnnxGenaiNbits())]
    with pytest.raises(InputError, match=said):
        check_chain(steps, six.LANGUAGE, "llama")


def test_nothing_follows_a_folder() -> None:
    with pytest.raises(InputError, match="wanda cannot follow onnx_genai"):
        check_chain([("onnx_genai", OnnxGenai()), ("wanda", get_method("wanda").config())], six.LANGUAGE, "llama")


def cut_unequally(checkpoint: Checkpoint) -> None:
    """Each layer has heads and neurons of its own number."""
    first, second = layers_of(checkpoint.torch_network)
    keep_heads(first, (2, 3))
    keep_neurons(first, range(3, 51))
    keep_neurons(second, range(40))


def cut_other(checkpoint: Checkpoint) -> None:
    """The second layer has fewer heads than the first, by which the config goes."""
    keep_heads(layers_of(checkpoint.torch_network)[1], (0, 1))


SHAPES: dict[str, Callable[[Checkpoint], object]] = {
    "unequal": cut_unequally,
    "second": cut_other,
    "one layer": lambda checkpoint: keep_layers(checkpoint.torch_network, [1]),
    "shared": lambda checkpoint: share(checkpoint.torch_network, (0, 0)),
}


@pytest.mark.parametrize("family", six.DECODERS)
@pytest.mark.parametrize("name", SHAPES)
def test_pruned_shapes_are_served(name: str, family: str, tmp_path: Path) -> None:
    """The proof holds the library's answers, and what its loop writes, against torch's. Of 40 neurons no block of 16 is whole: such a matrix stands there in floats."""
    report = step("onnx_genai", source_of(family, tmp_path, SHAPES[name]), tmp_path / "made", family)
    held = held_in(read_graph(tmp_path / "made" / "model.onnx"))
    assert report.parameters == report.parameters_before
    if name == "unequal":
        down = {tensor.numbers.shape[1]: tensor.kind for path, tensor in held.items() if path.endswith(("down_proj.weight", "mlp.c_proj.weight"))}
        assert down == {48: "int4", 40: "fp32"}
    if name == "shared":
        assert not any(".1." in path for path in held)


def test_factors_of_matrices_are_two_products(tmp_path: Path) -> None:
    step("svd", source_of("llama", tmp_path), tmp_path / "factored", parameters=0.5)
    step("onnx_genai", tmp_path / "factored", tmp_path / "made", weights="fp32")
    held = held_in(read_graph(tmp_path / "made" / "model.onnx"))
    assert sum(path.endswith((".first.weight", ".second.weight")) for path in held) > 4


@pytest.mark.parametrize("family", six.DECODERS)
def test_a_trimmed_vocabulary_is_served_with_its_tokenizer(family: str, tmp_path: Path) -> None:
    step("trim_vocabulary", source_of(family, tmp_path), tmp_path / "trimmed", family, min_count=20)
    step("onnx_genai", tmp_path / "trimmed", tmp_path / "made", family, weights="fp32")
    rows = len(load(tmp_path / "trimmed").tokenizer)
    assert rows < len(load(tmp_path / "source").tokenizer)
    assert open_runtime(tmp_path / "made").logits([{"input_ids": [1, 2, 3]}])[0].shape == (3, rows)


@pytest.mark.parametrize("rotation", [{"rope_type": "linear", "factor": 2.0}, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}])
@pytest.mark.parametrize("heads", [4, 2])
def test_rotations_are_the_networks(rotation: dict[str, Any], heads: int, tmp_path: Path) -> None:
    """Heads of 8 channels are rotated before attention, heads of 16 by attention itself."""
    source = source_of("llama", tmp_path, num_attention_heads=heads, num_key_value_heads=2, rope_parameters={"rope_theta": 100.0, **rotation})
    step("onnx_genai", source, tmp_path / "made", weights="fp32")
    operators = [node.op_type for node in read_graph(tmp_path / "made" / "model.onnx").graph.node]
    assert operators.count("RotaryEmbedding") == (4 if heads == 4 else 0)
    tokens = {"input_ids": np.random.default_rng(0).integers(0, 280, 60).tolist()}
    [was], [now] = runtime_of(load(source)).logits([tokens]), open_runtime(tmp_path / "made").logits([tokens])
    np.testing.assert_allclose(now, was, atol=1e-4)


def assert_same_answers(source: Path, made: Path) -> None:
    tokens = {"input_ids": np.random.default_rng(0).integers(0, 280, 40).tolist()}
    [was], [now] = runtime_of(load(source)).logits([tokens]), open_runtime(made).logits([tokens])
    np.testing.assert_allclose(now, was, atol=1e-4 * np.abs(was).max())


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_pytorch_tanh"])
def test_other_activations_are_written(activation: str, tmp_path: Path) -> None:
    for family, dial in (("llama", "hidden_act"), ("gpt2", "activation_function")):
        source = source_of(family, tmp_path / family, **{dial: activation})
        step("onnx_genai", source, tmp_path / family / "made", family, weights="fp32")
        assert_same_answers(source, tmp_path / family / "made")


@pytest.mark.parametrize("family", six.DECODERS)
def test_biases_and_scales_of_attention_are_written(family: str, tmp_path: Path) -> None:
    config = {"scale_attn_weights": False} if family == "gpt2" else {"attention_bias": True, "mlp_bias": True}
    source = source_of(family, tmp_path, **config)
    step("onnx_genai", source, tmp_path / "made", family, weights="fp32")
    assert_same_answers(source, tmp_path / "made")


UNSAYABLE: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"hidden_act": "mish"}, "the activation 'mish' is written into no graph here"),
    "channels": ({"num_attention_heads": 8, "num_key_value_heads": 8}, "heads of 4 channels have no attention in ONNX Runtime, which takes multiples of 8"),
    "rotation": ({"rope_parameters": {"rope_theta": 100.0, "rope_type": "dynamic", "factor": 2.0}}, "the rotation 'dynamic' changes with what has been read"),
}


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_no_graph_says_leaves_nothing(name: str, tmp_path: Path) -> None:
    config, said = UNSAYABLE[name]
    with pytest.raises(InputError, match=said):
        step("onnx_genai", source_of("llama", tmp_path, **config), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_factored_embeddings_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    step("factorize_embeddings", source_of("llama", tmp_path), tmp_path / "factored", rank=8)
    with pytest.raises(InputError, match="token embeddings that are a product of two matrices are written into no graph here"):
        step("onnx_genai", tmp_path / "factored", tmp_path / "made")
    monkeypatch.setattr(folder, "LARGEST", 1000)
    with pytest.raises(InputError, match="a graph in one file holds less than 2; store them in int4"):
        step("onnx_genai", tmp_path / "source", tmp_path / "made")


def test_the_same_model_gives_the_same_folder(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path)
    for name in ("one", "two"):
        step("onnx_genai", source, tmp_path / name)
    assert sha256_directory(tmp_path / "one") == sha256_directory(tmp_path / "two")
