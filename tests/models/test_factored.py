"""A matrix as two: it answers like their product, comes back from disk as two, is counted as two, and is refused when they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recompress.errors import IntegrityError
from recompress.methods.registry import get_method
from recompress.methods.runner import parameters_in, run_step
from recompress.models.architecture import encoder_linears, layers_of, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.factored import FactoredEmbedding, FactoredLinear, FactoredOutput, factored_embedding, factored_linear, is_factored, token_table
from recompress.models.packed import PackedLinear
from recompress.models.pretrained import from_base
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from tests.cut import RANK, factor_embeddings, factor_layers
from tests.six import DECODERS, HIDDEN, LENGTH, NEURONS, SIX, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_factored_layer_is_the_product() -> None:
    second, first, bias, rows = torch.randn(6, 2), torch.randn(2, 9), torch.randn(6), torch.randn(3, 4, 9)
    linear = factored_linear(second, first, bias)
    torch.testing.assert_close(linear(rows), rows @ (second @ first).T + bias)
    torch.testing.assert_close(weight_of(linear), second @ first)
    assert (shape_of(linear), linear.rank) == ((6, 9), 2)
    assert torch.equal(linear.bias, bias)
    assert sum(parameter.numel() for parameter in linear.parameters()) == 2 * (6 + 9) + 6


def test_a_factored_embedding_and_its_output_layer_are_the_product() -> None:
    first, second = torch.randn(20, 3), torch.randn(8, 3)
    embedding = factored_embedding(first, second, padding_idx=0)
    numbers = torch.tensor([[0, 19], [3, 3]])
    torch.testing.assert_close(embedding(numbers), (first @ second.T)[numbers])
    assert (embedding.num_embeddings, embedding.embedding_dim, embedding.rank, embedding.padding_idx) == (20, 8, 3, 0)
    output, rows = FactoredOutput(embedding, None), torch.randn(5, 8)
    torch.testing.assert_close(output(rows), rows @ embedding.weight.T)
    assert {id(parameter) for parameter in output.parameters()} == {id(parameter) for parameter in embedding.parameters()}


def test_a_factored_output_layer_adds_its_bias() -> None:
    embedding, bias, rows = factored_embedding(torch.randn(20, 3), torch.randn(8, 3), padding_idx=None), torch.randn(20), torch.randn(5, 8)
    torch.testing.assert_close(FactoredOutput(embedding, bias)(rows), rows @ embedding.weight.T + bias)


@pytest.mark.parametrize("family", SIX)
def test_what_is_read_back_is_factored_and_answers_the_same(family: str, tmp_path: Path) -> None:
    whole, factored = checkpoint_of(family), factor_embeddings(factor_layers(checkpoint_of(family)))
    save(factored, tmp_path / "model")
    loaded = load(tmp_path / "model")
    network: Any = loaded.torch_network
    features = features_of(factored, family)
    assert all((a == b).all() for a, b in zip(runtime_of(factored).logits(features), runtime_of(loaded).logits(features), strict=True))
    assert all(isinstance(part, FactoredLinear) for layer in layers_of(network) for part in (layer.query, layer.key, layer.out, *layer.neurons_in))
    assert isinstance(network.get_input_embeddings(), FactoredEmbedding)
    assert all(shape_of(linear) in _factor_shapes(family) for _, linear in encoder_linears(network))
    saved = sum((RANK - rows * columns / (rows + columns)) * (rows + columns) for rows, columns in _shapes(whole))
    vocabulary = len(whole.tokenizer)
    assert parameters_in(loaded) - parameters_in(whole) == round(saved) + 4 * (vocabulary + HIDDEN) - vocabulary * HIDDEN
    assert parameters_in(loaded) == sum(parameter.numel() for parameter in network.parameters())
    if family in DECODERS:
        assert network.lm_head.first is token_table(network)
        assert not any(name.startswith("lm_head") for name in load_file(tmp_path / "model" / "model.safetensors"))
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


def _shapes(checkpoint: Any) -> list[tuple[int, int]]:
    return [shape_of(linear) for _, linear in encoder_linears(checkpoint.torch_network)]


def _factor_shapes(family: str) -> set[tuple[int, int]]:
    return {shape for rows, columns in _shapes(checkpoint_of(family)) for shape in ((RANK, columns), (rows, RANK))}


@pytest.mark.parametrize("name", ["rtn", "gptq"])
def test_factors_are_packed_like_other_layers(name: str, tmp_path: Path) -> None:
    """Both factors of each layer, and the first factor of the embeddings with its tied output layer."""
    save(factor_embeddings(factor_layers(checkpoint_of("llama"))), tmp_path / "source")
    inputs = inputs_of("llama", tmp_path / "work", 24)
    report = run_step(name, get_method(name).config(bits=4, embeddings=True), tmp_path / "source", tmp_path / "target", inputs)
    network: Any = load(tmp_path / "target").torch_network
    assert all(isinstance(part, PackedLinear) for layer in layers_of(network) for part in (layer.out.first, layer.out.second))
    assert network.lm_head.first is network.get_input_embeddings().first is token_table(network)
    assert hasattr(token_table(network), "codes")
    assert report.parameters == report.parameters_before


def test_zeros_can_be_made_in_factors_after_calibration(tmp_path: Path) -> None:
    save(factor_layers(checkpoint_of("gpt2")), tmp_path / "source")
    run_step("wanda", get_method("wanda").config(sparsity=0.5), tmp_path / "source", tmp_path / "target", inputs_of("gpt2", tmp_path / "work", 24))
    for _, linear in encoder_linears(load(tmp_path / "target").torch_network):
        assert int((linear.weight == 0).sum()) == linear.weight.shape[0] * (linear.weight.shape[1] // 2)


def test_a_factored_model_is_a_base_too(tmp_path: Path) -> None:
    checkpoint = factor_embeddings(factor_layers(checkpoint_of("roberta")))
    save(checkpoint, tmp_path / "base")
    network = from_base(tmp_path / "base", "token-classification", ("O", "B-X"), LENGTH, seed=0).torch_network
    assert is_factored(network)
    for name, tensor in checkpoint.torch_network.base_model.state_dict().items():
        assert name.startswith("pooler") or torch.equal(network.base_model.state_dict()[name], tensor)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("factored") / "model"
    save(factor_embeddings(factor_layers(checkpoint_of("bert"))), place)
    return place


PART = "bert.encoder.layer.1.attention.self.query"
TABLE = "bert.embeddings.word_embeddings"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{PART}.first.weight": torch.zeros(RANK + 1, HIDDEN)}, "do not fit each other"),
        ({f"{PART}.first.weight": torch.zeros(RANK, HIDDEN + 1)}, "layer 1 do not fit each other"),
        ({f"{PART}.first.weight": torch.zeros(HIDDEN)}, "missing or no matrix"),
        ({f"{PART}.first.weight": torch.zeros(0, HIDDEN), f"{PART}.second.weight": torch.zeros(HIDDEN, 0)}, "missing or no matrix"),
        ({f"{PART}.first.weight": None}, "is missing"),
        ({f"{PART}.second.weight": None}, "missing or no matrix"),
        ({f"{PART}.second.bias": None}, "its bias is missing"),
        ({f"{PART}.second.bias": torch.zeros(HIDDEN + 1)}, "its bias is missing, not expected, or of another size"),
        ({f"{PART}.weight": torch.zeros(HIDDEN, HIDDEN)}, "is not expected"),
        ({f"{TABLE}.second.weight": torch.zeros(NEURONS, 4)}, "the config says"),
        ({"classifier.first.weight": torch.zeros(2, HIDDEN), "classifier.second.weight": torch.zeros(7, 2)}, "the config says"),
        ({"bert.nowhere.first.weight": torch.zeros(2, 2)}, "no such part"),
        ({"bert.embeddings.LayerNorm.first.weight": torch.zeros(2, 2), "bert.embeddings.LayerNorm.second.weight": torch.zeros(2, 2)}, "it is no matrix"),
    ],
)
def test_factors_that_do_not_fit_are_refused_in_one_line(change: dict[str, Any], message: str, stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "model")
    tensors = load_file(stored / "model.safetensors") | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=message) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_no_linear_layer_is_taken_for_a_factored_one() -> None:
    assert not is_factored(checkpoint_of("bert").torch_network)
    assert not is_factored(nn.Sequential(nn.Linear(2, 2)))
