"""Where Mistral, Qwen2 and Qwen3 differ from Llama: biases, norms of heads, heads of any size, layers that see a window of the text, and tokenizers that compose letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recompress.methods.registry import Claim, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.methods.slimming.shapes import shape_now, sizes_of
from recompress.models.architecture import layers_of, stream_norms
from recompress.models.checkpoint import load, save
from recompress.models.files import distinct_tensors
from recompress.models.gguf.tokens import PRE
from recompress.models.surgery import keep_layers
from recompress.models.tokenizer import assembled
from tests.six import KIN, checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ("llama", *KIN)


def step(name: str, family: str, place: Path, source: str, target: str, **dials: Any) -> StepReport:
    method = get_method(name)
    report = run_step(name, method.config(**dials), place / source, place / target, inputs_of(family, place / f"{target}-work"))
    assert all(Claim(**claim).kept for claim in report.claims)
    return report


@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_can_be_cut_at_once_is_read_back_as_it_was_cut(family: str, tmp_path: Path) -> None:
    """Also by plain transformers, where the config can say the shape; heads keep their size while the width goes."""
    save(checkpoint_of(family), tmp_path / "source")
    step("prune_structure", family, tmp_path, "source", "cut", hidden=0.5, neurons=0.5, layers=1)
    network = load(tmp_path / "cut").torch_network
    [layer] = layers_of(network)
    assert (layer.head_size, layer.heads, layer.neurons, network.config.hidden_size) == (8, 4, 32, 16)
    assert {tuple(norm.weight.shape) for norm in stream_norms(network)} == {(16,)}
    if family == "qwen3":
        assert layer.attention.q_norm.weight.shape == (8,)
    from transformers import AutoModelForCausalLM

    _, told = AutoModelForCausalLM.from_pretrained(tmp_path / "cut", output_loading_info=True)
    assert not [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_of_a_shape_are_those_of_the_network(family: str) -> None:
    network = checkpoint_of(family).torch_network
    assert sizes_of(network).of(shape_now(network)) == sum(tensor.numel() for tensor in distinct_tensors(network).values())


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_layers_that_stay_see_what_they_saw(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, num_hidden_layers=4, use_sliding_window=True, sliding_window=4, max_window_layers=3)
    assert checkpoint.torch_network.config.layer_types == ["full_attention"] * 3 + ["sliding_attention"]
    keep_layers(checkpoint.torch_network, [0, 3])
    save(checkpoint, tmp_path / "kept")
    network: Any = load(tmp_path / "kept").torch_network
    assert network.config.layer_types == ["full_attention", "sliding_attention"]
    assert [layer.self_attn.sliding_window for layer in network.model.layers] == [None, 4]


@pytest.mark.parametrize("family", KIN)
def test_their_files_answer_as_torch_does(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    save(checkpoint_of(family), tmp_path / "source")
    step("onnx_genai", family, tmp_path, "source", "graph", weights="fp32")


def test_a_file_of_a_tokenizer_that_composes_letters_is_asked_with_composed_text(tmp_path: Path) -> None:
    """The training text has letters with marks of their own."""
    pytest.importorskip("xllamacpp")
    checkpoint = checkpoint_of("qwen3")
    definition = json.loads(checkpoint.tokenizer.backend_tokenizer.to_str())
    definition |= {"pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE["qwen2"]}, "normalizer": {"type": "NFC"}}
    checkpoint.tokenizer = assembled(json.dumps(definition), {"eos_token": "<end>", "pad_token": "<end>"})
    save(checkpoint, tmp_path / "source")
    report = step("gguf", "qwen3", tmp_path, "source", "file", weights="f32")
    assert ("texts that the file's own tokenizer cuts otherwise", 0.0) in [(claim["what"], claim["measured"]) for claim in report.claims]
