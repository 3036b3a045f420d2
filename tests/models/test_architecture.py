"""The maps of all families point at what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification
from transformers.pytorch_utils import Conv1D

from recompress.errors import InputError
from recompress.models.architecture import ARCHITECTURES, GROUPED, architecture_named, architecture_of, encoder_linears, layers_of, shape_of
from tests.families import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, config_of, network_of


def network(family: str) -> Any:
    if family == "gpt2":
        config = AutoConfig.for_model("gpt2", vocab_size=50, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_inner=NEURONS, n_positions=32)
        return network_of(config, AutoModelForCausalLM)
    if family in GROUPED:
        shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": NEURONS}
        return network_of(AutoConfig.for_model(family, vocab_size=50, num_key_value_heads=2, head_dim=HIDDEN // HEADS, **shape), AutoModelForCausalLM)
    return network_of(config_of(family, 50, 3), AutoModelForTokenClassification)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_part_of_every_layer_is_found_with_its_shape(family: str) -> None:
    layers = layers_of(network(family))
    assert [layer.index for layer in layers] == list(range(LAYERS))
    for layer in layers:
        assert (layer.heads, layer.head_size, layer.neurons) == (HEADS, HIDDEN // HEADS, NEURONS)
        assert shape_of(layer.out) == (HIDDEN, HIDDEN)
        assert shape_of(layer.neurons_out) == (HIDDEN, NEURONS)
        assert all(shape_of(linear) == (NEURONS, HIDDEN) for linear in layer.neurons_in)
        keys = 3 * HIDDEN if family == "gpt2" else HIDDEN // 2 if family in GROUPED else HIDDEN
        assert shape_of(layer.key) == shape_of(layer.value) == (keys, HIDDEN)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_encoder_linears_are_all_of_the_layers_and_nothing_else(family: str) -> None:
    model = network(family)
    linears = dict(encoder_linears(model))
    each = 4 if family == "gpt2" else 7 if family in GROUPED else 6
    assert len(linears) == each * LAYERS
    assert not any(part in name for name in linears for part in ("classifier", "embeddings", "lm_head", "pooler"))
    assert all(isinstance(linear, Conv1D if family == "gpt2" else torch.nn.Linear) for linear in linears.values())


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_embeddings_and_head_stand_where_the_map_says(family: str) -> None:
    model = network(family)
    architecture = architecture_of(model)
    assert model.base_model.get_submodule(architecture.token_embedding) is model.get_input_embeddings()
    outside = {name for name, _ in model.named_children()} - {model.base_model_prefix, "dropout"}
    assert outside <= set(architecture.head)


def test_every_encoder_of_the_tests_is_described() -> None:
    assert set(FAMILIES) <= set(ARCHITECTURES)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"architecture 'albert' is not known; known: bert, roberta, xlm-roberta, distilbert, gpt2, llama, mistral, qwen2, qwen3$"
    ):
        architecture_named("albert")
