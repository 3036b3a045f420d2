"""A model written as GGUF and read back is the same model; what a file cannot say, and what no file should say, is one line."""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import sha256_directory, sha256_file
from recompress.methods.registry import get_method
from recompress.models.base import find_base
from recompress.models.checkpoint import Checkpoint
from recompress.models.gguf import library, shape
from recompress.models.gguf.reading import read_gguf
from recompress.models.gguf.tokens import PRE, pre_of, tokenizer_of, values_of
from recompress.models.gguf.writing import as_kind, write_gguf
from recompress.models.pretrained import from_base
from recompress.models.tokenizer import AWKWARD, assembled
from recompress.runtimes import runtime_of
from tests.six import DECODERS, LANGUAGE, checkpoint_of, features_of, inputs_of, texts

pytest.importorskip("gguf")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<end>{% endfor %}"


def write(checkpoint: Checkpoint, path: Path, kind: str = "F32") -> Path:
    write_gguf(checkpoint.torch_network, checkpoint.tokenizer, path, kind=kind, coding=lambda place: as_kind(place, kind), name="tiny")
    return path


@dataclass
class Variant:
    """A family, with changes of its config."""

    family: str
    changes: dict[str, Any]


VARIANTS = {
    "llama": Variant("llama", {}),
    "llama-untied": Variant("llama", {"tie_word_embeddings": False}),
    "llama-biases": Variant("llama", {"attention_bias": True}),
    "llama-wide-heads": Variant("llama", {"head_dim": 16}),
    "llama-stretched": Variant("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}}),
    "qwen2": Variant("qwen2", {}),
    "qwen3": Variant("qwen3", {"attention_bias": True}),
    "gpt2": Variant("gpt2", {}),
    "gpt2-untied": Variant("gpt2", {"tie_word_embeddings": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_that_is_written_and_read_back_answers_the_same(name: str, tmp_path: Path) -> None:
    """Every number, every token, and the config that they need."""
    variant = VARIANTS[name]
    checkpoint = checkpoint_of(variant.family, **variant.changes)
    checkpoint.tokenizer.chat_template = TEMPLATE
    write(checkpoint, tmp_path / "tiny.gguf")
    base = find_base("tiny.gguf", sha256=sha256_file(tmp_path / "tiny.gguf"), root=tmp_path)
    back = from_base(base, LANGUAGE, (), checkpoint.info.max_length, 0)
    features = features_of(checkpoint, variant.family)
    for was, now in zip(runtime_of(checkpoint).logits(features), runtime_of(back).logits(features), strict=True):
        np.testing.assert_array_equal(was, now)
    rows = [example.words[0] for example in texts(50, seed=3)] + ["", " ", "a<end>  b\n\n"]
    assert back.tokenizer(rows)["input_ids"] == checkpoint.tokenizer(rows)["input_ids"]
    assert back.tokenizer.chat_template == TEMPLATE
    assert (back.tokenizer.eos_token, back.tokenizer.pad_token) == ("<end>", "<end>")


def test_a_file_is_turned_into_a_folder_once_and_into_the_same_bytes(tmp_path: Path) -> None:
    write(checkpoint_of("llama"), tmp_path / "tiny.gguf", "Q8_0")
    first = find_base("tiny.gguf", root=tmp_path)
    digest, made = sha256_directory(first), (first / "config.json").stat().st_mtime_ns
    assert find_base("tiny.gguf", root=tmp_path) == first
    assert (first / "config.json").stat().st_mtime_ns == made
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tiny.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes())
    assert sha256_directory(find_base("tiny.gguf", root=tmp_path / "elsewhere")) == digest


def test_weights_are_what_the_codes_of_the_file_stand_for(tmp_path: Path) -> None:
    """By hand: a block of Q8_0 is a 16-bit scale and 32 signed bytes."""
    checkpoint = checkpoint_of("gpt2")
    write(checkpoint, tmp_path / "tiny.gguf", "Q8_0")
    held = read_gguf(tmp_path / "tiny.gguf").tensors["blk.1.ffn_up.weight"]
    blocks = np.asarray(held.stored).reshape(-1, 34)
    by_hand = blocks[:, :2].copy().view(np.float16).astype(np.float32) * blocks[:, 2:].copy().view(np.int8)
    back = from_base(find_base("tiny.gguf", root=tmp_path), LANGUAGE, (), 16, 0).torch_network
    np.testing.assert_array_equal(back.transformer.h[1].mlp.c_fc.weight.detach().numpy().T, by_hand.reshape(held.shape))


def test_queries_and_keys_stand_in_the_order_that_llama_cpp_rotates(tmp_path: Path) -> None:
    """Row 2 i of a head is channel i of its first half, row 2 i + 1 channel i of its second."""
    checkpoint = checkpoint_of("llama")
    write(checkpoint, tmp_path / "tiny.gguf")
    file = read_gguf(tmp_path / "tiny.gguf")
    attention = checkpoint.torch_network.model.layers[0].self_attn
    for name, linear in (("attn_q", attention.q_proj), ("attn_k", attention.k_proj)):
        heads = linear.weight.detach().view(-1, 8, 32)
        interleaved = torch.stack([heads[:, :4], heads[:, 4:]], dim=2).flatten(0, 2)
        np.testing.assert_array_equal(file.tensors[f"blk.0.{name}.weight"].numbers(), interleaved.numpy())


def test_of_a_qwen_they_stand_as_they_are_and_a_mistral_is_written_as_the_llama_that_it_is(tmp_path: Path) -> None:
    qwen, mistral = checkpoint_of("qwen3"), checkpoint_of("mistral")
    file = read_gguf(write(qwen, tmp_path / "qwen.gguf"))
    attention = qwen.torch_network.model.layers[1].self_attn
    for name, module in (("attn_q", attention.q_proj), ("attn_k", attention.k_proj), ("attn_q_norm", attention.q_norm), ("attn_k_norm", attention.k_norm)):
        np.testing.assert_array_equal(file.tensors[f"blk.1.{name}.weight"].numbers(), module.weight.detach().numpy())
    assert read_gguf(write(mistral, tmp_path / "mistral.gguf")).values["general.architecture"] == "llama"
    back = from_base(find_base("mistral.gguf", root=tmp_path), LANGUAGE, (), 16, 0)
    for was, now in zip(*(runtime_of(one).logits(features_of(mistral, "mistral")) for one in (mistral, back)), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(
    ("family", "changes"), [("mistral", {"sliding_window": 32}), ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1})]
)
def test_a_window_of_the_text_that_a_file_cannot_say_is_refused(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"see the last 32 before them alone .sliding_window of this {family}."):
        write(checkpoint_of(family, **changes), tmp_path / "tiny.gguf")
    shape.values_of(checkpoint_of(family, **changes | {"sliding_window": 64}).torch_network)  # as many as there are positions


def bytes_of(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Read a file, write it again with its values changed."""

    def spoil(path: Path) -> None:
        gguf, file = library(), read_gguf(path)
        values = {key: value for key, value in file.values.items() if not key.startswith("GGUF.")}
        tensors = dict(file.tensors)
        change((values, tensors))
        writer = gguf.GGUFWriter(path.with_suffix(".new"), values.pop("general.architecture"))
        for key, value in values.items():
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}.get(type(value), writer.add_array)
            add(key, value)
        for name, held in tensors.items():
            writer.add_tensor(name, np.array(held.stored))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        path.with_suffix(".new").replace(path)

    return spoil


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_type_99(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    path.write_bytes(data[:at] + struct.pack("<I", 99) + data[at + 4 :])


def of_type_tq(path: Path) -> None:
    """A type that the library names and cannot turn into floats: whole numbers."""
    data = path.read_bytes()
    at = data.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    path.write_bytes(data[:at] + struct.pack("<I", 26) + data[at + 4 :])


BROKEN: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "cut off": (cut, IntegrityError, "tiny.gguf is no whole GGUF file: .*; get it again"),
    "no gguf": (lambda path: path.write_bytes(b"PK\x03\x04" * 99), IntegrityError, "does not begin with GGUF"),
    "another architecture": (
        bytes_of(lambda file: file[0].update({"general.architecture": "mamba"})),
        InputError,
        "architecture 'mamba'; read here are gpt2, llama, qwen2, qwen3",
    ),
    "a type nobody knows": (of_type_99, InputError, "output_norm.weight is of type 99, which the package gguf does not know"),
    "a type nobody can read": (of_type_tq, InputError, "output_norm.weight is quantized as I32, which the package gguf cannot turn into floats"),
    "another tokenizer": (bytes_of(lambda file: file[0].update({"tokenizer.ggml.model": "llama"})), InputError, "tokenizer is of the kind 'llama'"),
    "another way of cutting": (bytes_of(lambda file: file[0].update({"tokenizer.ggml.pre": "poro-chat"})), InputError, "cuts text in the way 'poro-chat'"),
    "a tensor is missing": (bytes_of(lambda file: file[1].pop("blk.1.ffn_up.weight")), InputError, "lacks blk.1.ffn_up.weight"),
    "a tensor too many": (
        bytes_of(lambda file: file[1].update({"blk.7.x.weight": file[1]["output_norm.weight"]})),
        InputError,
        "holds blk.7.x.weight, which a llama of this shape has no place for",
    ),
    "other widths": (
        bytes_of(lambda file: file[0].update({"llama.feed_forward_length": 32})),
        InputError,
        r"has the shape \[64, 32\]|has the shape \[32, 64\]",
    ),
    "widths by layer": (
        bytes_of(lambda file: file[0].update({"llama.feed_forward_length": [64, 32]})),
        InputError,
        r"is \[64, 32\], and has to be one whole number",
    ),
    "no shape": (bytes_of(lambda file: file[0].pop("llama.block_count")), InputError, "llama.block_count is None"),
    "a stretch": (bytes_of(lambda file: file[0].update({"llama.rope.scaling.type": "yarn"})), InputError, "stretches its rotation by 'yarn'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_base_that_cannot_be_used_is_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    spoil, error, said = BROKEN[name]
    path = write(checkpoint_of("llama"), tmp_path / "tiny.gguf")
    spoil(path)
    with pytest.raises(error, match=said) as caught:
        find_base("tiny.gguf", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not [*(tmp_path / ".recompress").rglob("*.safetensors")]


def test_a_pin_and_a_place_are_held_against_the_file(tmp_path: Path) -> None:
    write(checkpoint_of("llama"), tmp_path / "tiny.gguf")
    with pytest.raises(IntegrityError, match=r"tiny.gguf has sha256 [0-9a-f]{64}, the recipe says 0{64}"):
        find_base("tiny.gguf", sha256="0" * 64, root=tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        find_base("other.gguf", root=tmp_path)
    with pytest.raises(InputError, match="the package 'pytest' holds no file 'x.gguf'"):
        find_base("package://pytest/x.gguf", root=tmp_path)


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    path = write(checkpoint_of("llama"), tmp_path / "tiny.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"need the package gguf, which is not installed: pip install 'recompress\[gguf\]'"):
        read_gguf(path)


@pytest.mark.parametrize("pre", [name for name in PRE if name not in ("starcoder", "refact")])  # two that are cut as smollm is
def test_each_way_of_cutting_text_goes_out_and_comes_back(pre: str) -> None:
    """With a token before each text, where the tokenizer puts one there."""
    definition = json.loads(checkpoint_of("llama").tokenizer.backend_tokenizer.to_str())
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": PRE[pre]}
    definition["model"]["ignore_merges"] = pre == "llama-bpe"
    if pre == "llama-bpe":
        first = [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        special = {"<end>": {"id": "<end>", "ids": [0], "tokens": ["<end>"]}}
        definition["post_processor"] = {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": special,
        }
    definition["normalizer"] = {"type": "NFC"} if pre == "qwen2" else None
    tokenizer = assembled(json.dumps(definition), {"eos_token": "<end>"})
    assert pre_of(definition) == pre
    back = tokenizer_of(values_of(tokenizer, len(tokenizer)))
    rows = [example.words[0] for example in texts(50, seed=4)] + ["l'an 2024, it's  12345\n\n  x", "e\u0323\u0300ko\u0323\u0301"]
    assert back(rows)["input_ids"] == tokenizer(rows)["input_ids"]
    assert (back(rows[0])["input_ids"][0] == 0) == (pre == "llama-bpe")


def test_a_tokenizer_of_qwens_kind_cuts_as_llama_cpp_does_what_is_composed(tmp_path: Path) -> None:
    """Digits one by one, and marks on their letters; the file's own reading of a text that is not composed is llama.cpp's affair, and said."""
    pytest.importorskip("xllamacpp")
    from recompress.runtimes.llama_cpp import LlamaModel

    checkpoint = checkpoint_of("qwen2")
    definition = json.loads(checkpoint.tokenizer.backend_tokenizer.to_str())
    definition["pre_tokenizer"], definition["normalizer"] = {"type": "Sequence", "pretokenizers": PRE["qwen2"]}, {"type": "NFC"}
    checkpoint.tokenizer = assembled(json.dumps(definition), {"eos_token": "<end>"})
    model = LlamaModel(write(checkpoint, tmp_path / "tiny.gguf"), 1)
    for text in (*AWKWARD, *(example.words[0] for example in texts(30, seed=5))):
        assert model.tokens(unicodedata.normalize("NFC", text)) == checkpoint.tokenizer(text, verbose=False)["input_ids"]


TOKENIZERS: dict[str, tuple[Callable[[Any], None], str]] = {
    "normalizer": (lambda made: made.update(normalizer={"type": "NFC"}), "no key for a tokenizer's normalizer, and this one has NFC"),
    "no normalizer": (
        lambda made: made.update(pre_tokenizer={"type": "Sequence", "pretokenizers": PRE["qwen2"]}),
        "says qwen2 of tokenizers that compose letters and marks first .NFC., and this one does not",
    ),
    "cutting": (lambda made: made["pre_tokenizer"].update(add_prefix_space=True), "no name here for a tokenizer that cuts text by ByteLevel"),
    "spaces": (lambda made: made["added_tokens"][0].update(rstrip=True), "the token '<end>' takes the spaces beside it"),
    "kind": (lambda made: made.update(pre_tokenizer={"type": "Whitespace"}), "written for BPE over bytes"),
    "behind": (
        lambda made: made.update(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<end>": {"id": "<end>", "ids": [0], "tokens": ["<end>"]}},
            }
        ),
        "this tokenizer does something else",
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_no_file_can_say_is_refused(name: str) -> None:
    change, said = TOKENIZERS[name]
    definition = json.loads(checkpoint_of("llama").tokenizer.backend_tokenizer.to_str())
    change(definition)
    tokenizer = assembled(json.dumps(definition), {"eos_token": "<end>"})
    with pytest.raises(InputError, match=said):
        values_of(tokenizer, len(tokenizer))


def test_rows_without_a_token_have_a_name_of_their_own() -> None:
    """A network may have more rows than its tokenizer has tokens; a file has a token for each."""
    tokenizer = checkpoint_of("llama").tokenizer
    values = values_of(tokenizer, len(tokenizer) + 2)
    assert values["tokenizer.ggml.tokens"][-2:] == [f"[PAD{len(tokenizer)}]", f"[PAD{len(tokenizer) + 1}]"]
    assert values["tokenizer.ggml.token_type"][-2:] == [5, 5]
    assert values["tokenizer.ggml.token_type"][0] == 3, "<end> is a control token"


def test_shapes_that_no_file_can_say_are_refused(tmp_path: Path) -> None:
    from recompress.models.architecture import layers_of
    from recompress.models.surgery import keep_heads, keep_neurons

    llama, gpt2 = checkpoint_of("llama").torch_network, checkpoint_of("gpt2").torch_network
    keep_neurons(layers_of(llama)[0], range(32))
    with pytest.raises(InputError, match="one number of neurons for all layers, and this network has 32, 64; cut all layers alike"):
        shape.values_of(llama)
    for layer in layers_of(gpt2):
        keep_heads(layer, (0, 1, 2))
    with pytest.raises(InputError, match="3 heads of 8 channels stand in 32"):
        shape.values_of(gpt2)
    with pytest.raises(InputError, match="rope_type 'dynamic'"):
        shape.values_of(checkpoint_of("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}).torch_network)
    with pytest.raises(InputError, match="activation 'relu'"):
        shape.values_of(checkpoint_of("gpt2", activation_function="relu").torch_network)
    with pytest.raises(InputError, match="and this is a bert"):
        shape.values_of(checkpoint_of("bert").torch_network)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("family", DECODERS)
def test_layers_that_are_shared_or_made_of_two_matrices_are_refused(family: str, tmp_path: Path) -> None:
    for name, settings, said in (("share_layers", {"groups": 1}, "share their weights"), ("svd", {"parameters": 0.5}, "a product of two")):
        method = get_method(name)
        known = {key: value for key, value in settings.items() if key in method.config.model_fields}
        done = method.run(checkpoint_of(family), method.config(**known), inputs_of(family, tmp_path / name))
        with pytest.raises(InputError, match=said):
            write(done, tmp_path / "x.gguf")
