"""Layers with one set of weights: the same tensors in memory, once on disk, once in a graph, changed once by whatever changes layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recompress.errors import IntegrityError
from recompress.methods.registry import get_method
from recompress.methods.runner import parameters_in, run_step
from recompress.models.architecture import encoder_linears, is_linear, layers_of
from recompress.models.checkpoint import load, save
from recompress.models.files import distinct_tensors
from recompress.models.onnx_graph import read_graph, weights_in
from recompress.models.pretrained import from_base
from recompress.models.shared_layers import share, shares_of
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from tests.cut import deep, factor_embeddings, factor_layers, share_two
from tests.six import DECODERS, LENGTH, SIX, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", SIX)
def test_shared_layers_are_one_tensor_in_memory_and_on_disk(family: str, tmp_path: Path) -> None:
    whole, shared = deep(family), share_two(deep(family))
    save(shared, tmp_path / "model")
    loaded = load(tmp_path / "model")
    layers = layers_of(loaded.torch_network)
    assert loaded.info.shares == shares_of(loaded.torch_network) == (0, 1, 0, 1)
    for i in (0, 1):
        assert layers[i].query is layers[i + 2].query
        assert [id(parameter) for parameter in layers[i].module.parameters()] == [id(parameter) for parameter in layers[i + 2].module.parameters()]
    features = features_of(shared, family)
    assert all((a == b).all() for a, b in zip(runtime_of(shared).logits(features), runtime_of(loaded).logits(features), strict=True))
    one_layer = sum(parameter.numel() for parameter in layers[0].module.parameters())
    assert parameters_in(loaded) == parameters_in(whole) - 2 * one_layer
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values() if tensor.dtype == torch.float32) == parameters_in(loaded)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_keeps_the_keys_of_each_layer_apart(family: str) -> None:
    """Answers token by token, with the keys and values of those before kept, are those of the whole text."""
    network: Any = share_two(deep(family)).torch_network
    assert [layer.attention.layer_idx for layer in layers_of(network)] == [0, 1, 2, 3]  # type: ignore[comparison-overlap]
    ids = torch.tensor([[5, 9, 3, 7]])
    with torch.no_grad():
        together = network(input_ids=ids).logits
        first = network(input_ids=ids[:, :3], use_cache=True)
        last = network(input_ids=ids[:, 3:], past_key_values=first.past_key_values, use_cache=True).logits
    torch.testing.assert_close(last[:, 0], together[:, 3], rtol=1e-4, atol=1e-4)


def test_names_are_those_of_the_first_layer_also_from_ten_on() -> None:
    checkpoint = deep("bert", layers=12)
    share(checkpoint.torch_network, [*range(10), 2, 2])
    names = distinct_tensors(checkpoint.torch_network)
    assert any(".layer.2." in name for name in names)
    assert not any(".layer.10." in name or ".layer.11." in name for name in names)


@pytest.mark.parametrize("shares", [[0, 1, 0], [0, 0, 1, 0], [1, 1, 2, 3], [0, 1, 2, 9], [0, 1, -1, 3], [0, 1, 2, 3], [0, 0, 0, 0], []])
def test_shares_that_make_no_sense_or_fit_no_weights_are_refused(shares: list[int], tmp_path: Path) -> None:
    save(share_two(deep("distilbert")), tmp_path / "model")
    info_file = tmp_path / "model" / "recompress.json"
    info_file.write_text(json.dumps(json.loads(info_file.read_text()) | {"shares": shares}))
    with pytest.raises(IntegrityError, match="shares|missing|not expected") as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "dials"), [("rtn", {"bits": 4}), ("gptq", {"bits": 4}), ("wanda", {"sparsity": 0.5}), ("magnitude", {"sparsity": 0.5})])
@pytest.mark.parametrize("factored", [False, True])
def test_what_changes_layers_changes_shared_ones_once(name: str, dials: dict[str, Any], factored: bool, tmp_path: Path) -> None:
    shared = share_two(deep("bert"))
    save(factor_layers(shared) if factored else shared, tmp_path / "source")
    run_step(name, get_method(name).config(**dials), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work", 16))
    loaded = load(tmp_path / "target")
    assert loaded.info.shares == (0, 1, 0, 1)
    assert parameters_in(loaded) == parameters_in(load(tmp_path / "source"))


def test_a_killed_step_goes_on_with_shared_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off behind the second layer; the same bytes come out as in one go."""
    from recompress.layerwise import engine

    save(factor_layers(share_two(deep("llama"))), tmp_path / "source")
    config = get_method("gptq").config(bits=4)
    run_step("gptq", config, tmp_path / "source", tmp_path / "whole", inputs_of("llama", tmp_path / "one", 16))
    real, calls = engine._change, []

    def killed(*given: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_change", killed)
        with pytest.raises(KeyboardInterrupt):
            run_step("gptq", config, tmp_path / "source", tmp_path / "resumed", inputs_of("llama", tmp_path / "two", 16))
    run_step("gptq", config, tmp_path / "source", tmp_path / "resumed", inputs_of("llama", tmp_path / "two", 16))
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.long
def test_eight_bits_after_sharing_and_factoring_and_each_matrix_once_in_the_graph(tmp_path: Path) -> None:
    checkpoint = deep("distilbert", layers=2)
    share(checkpoint.torch_network, (0, 0))
    save(factor_embeddings(factor_layers(checkpoint)), tmp_path / "source")
    report = run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "source", tmp_path / "target", inputs_of("distilbert", tmp_path / "w"))
    assert report.parameters == report.parameters_before == parameters_in(checkpoint)
    assert [claim["measured"] for claim in report.claims[:2]] == [1, 1]


@pytest.mark.parametrize("name", ["dynamic_int8", "static_int8", "onnx_fp32"])
def test_shared_matrices_too_large_for_the_exporter_to_turn_are_constants_all_the_same(name: str, tmp_path: Path) -> None:
    """A shared weight behind a Transpose was passed over by the quantizer, and by the count that should have noticed it."""
    checkpoint = deep("bert", layers=4, hidden_size=64, intermediate_size=256)
    share(checkpoint.torch_network, (0, 1, 0, 1))
    save(checkpoint, tmp_path / "source")
    run_step(name, get_method(name).config(), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "w", 16))
    model = read_graph(tmp_path / "target" / "model.onnx")
    stored = {tensor.name for tensor in model.graph.initializer}
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in stored]
    matrices = sum(weight_of(linear).numel() for linear in checkpoint.torch_network.modules() if is_linear(linear))  # a module that is shared comes once
    weights = weights_in(model)
    assert weights.products == matrices
    assert weights.products_int8 == (0 if name == "onnx_fp32" else matrices)


@pytest.mark.long
@pytest.mark.parametrize("family", DECODERS)
def test_a_factor_of_tied_embeddings_is_in_8_bits_for_both_of_its_uses(family: str, tmp_path: Path) -> None:
    """The output layer multiplies with the same factor, turned."""
    shape = {"gpt2": {"n_embd": 128, "n_inner": 256}, "llama": {"hidden_size": 128, "intermediate_size": 256}}[family]
    save(deep(family, layers=2, **shape), tmp_path / "whole")
    run_step(
        "factorize_embeddings",
        get_method("factorize_embeddings").config(rank=72),
        tmp_path / "whole",
        tmp_path / "source",
        inputs_of(family, tmp_path / "a", 16),
    )
    run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "source", tmp_path / "target", inputs_of(family, tmp_path / "b", 16))
    weights = weights_in(read_graph(tmp_path / "target" / "model.onnx"))
    network = load(tmp_path / "source").torch_network
    assert weights.products == weights.products_int8 == sum(weight_of(one).numel() for one in network.modules() if is_linear(one)) + 72 * 128


def test_a_shared_model_is_a_base_too(tmp_path: Path) -> None:
    checkpoint = share_two(deep("roberta"))
    save(checkpoint, tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "copy")
    network = from_base(tmp_path / "copy", "token-classification", ("O", "B-X"), LENGTH, seed=0).torch_network
    assert shares_of(network) == (0, 1, 0, 1)
    assert len(dict(encoder_linears(network))) == 12
