"""A network with layers that nobody has described is refused when it is loaded, by one line, and not in the middle of a method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from recompress.errors import InputError
from recompress.models.architecture import check_described, layers_of
from recompress.models.checkpoint import load, save
from recompress.models.pretrained import from_base
from tests.six import CLASSIFIERS, LANGUAGE, LENGTH, SIX, byte_tokenizer, checkpoint_of, config_of
from tests.tiny import TOPICS, tiny_tokenizer

CROSS = r"has (crossattention\.\S+) in its layer 1, which is no part of a \S+ that is known here; .*add_cross_attention: false"


def base_of(family: str, folder: Path, **changes: object) -> Path:
    tokenizer = byte_tokenizer() if family == "gpt2" else tiny_tokenizer()
    config = config_of(family, len(tokenizer), 3, **changes)
    (AutoModelForCausalLM if family == "gpt2" else AutoModel).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("benchmark", [LANGUAGE, "text-classification", "token-classification"])
def test_a_base_with_cross_attention_is_refused(benchmark: str, tmp_path: Path) -> None:
    labels = {LANGUAGE: (), "text-classification": TOPICS}.get(benchmark, ("O", "B-X"))
    with pytest.raises(InputError, match=CROSS):
        from_base(base_of("gpt2", tmp_path, add_cross_attention=True), benchmark, labels, LENGTH, 0)


@pytest.mark.parametrize("family", ["gpt2", "gpt2-classifier"])
def test_a_model_with_cross_attention_is_refused(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, add_cross_attention=True)
    save(checkpoint, tmp_path / "model")
    assert any("crossattention" in name for name in checkpoint.torch_network.state_dict())
    with pytest.raises(InputError, match=CROSS):
        load(tmp_path / "model")


def test_an_encoder_that_was_turned_into_a_decoder_is_refused(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path)
    from_base(base, "text-classification", TOPICS, LENGTH, 0)
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"is_decoder": True}))
    with pytest.raises(InputError, match=r"is a bert that reads from left to right \(is_decoder: true\)"):
        from_base(base, "text-classification", TOPICS, LENGTH, 0)


@pytest.mark.parametrize("family", [*SIX, *CLASSIFIERS])
def test_what_is_described_passes_and_one_layer_more_does_not(family: str) -> None:
    network = checkpoint_of(family).torch_network
    check_described(network, Path("model"))
    layers_of(network)[1].module.adapter = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"^model has adapter in its layer 2, which is no part of a \S+ that is known here; take a model without it$"):
        check_described(network, Path("model"))
