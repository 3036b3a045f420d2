"""Codes into bytes and back, what packed modules compute, and packed models read back or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from recompress.errors import IntegrityError
from recompress.measure.size import parameters
from recompress.methods.registry import get_method
from recompress.methods.runner import parameters_in, run_step
from recompress.models.checkpoint import load, save
from recompress.models.packed import PackedEmbedding, PackedLinear, Quantized, pack, packed_embedding, packed_linear, place, unpack, words
from recompress.runtimes import runtime_of
from tests.six import checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 8), rows=st.integers(1, 4), columns=st.integers(1, 21), seed=st.integers(0, 999))
def test_codes_come_back_and_take_their_bits(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    assert torch.equal(unpack(packed, bits, columns), codes)
    for row, numbers in zip(packed.tolist(), codes.tolist(), strict=True):
        stream = sum(number << (i * bits) for i, number in enumerate(numbers))
        assert row == list(stream.to_bytes(len(row), "little"))


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 8), rows=st.integers(1, 4), columns=st.integers(1, 40), seed=st.integers(0, 999))
def test_words_hold_the_codes_of_a_row_as_one_long_number(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = words(codes, bits)
    assert packed.dtype == torch.int32
    assert packed.shape == (rows, -(-columns * bits // 32))
    for row, numbers in zip(packed.tolist(), codes.tolist(), strict=True):
        stream = sum((word % (1 << 32)) << (32 * i) for i, word in enumerate(row))
        assert stream == sum(number << (i * bits) for i, number in enumerate(numbers))


def matrix(**parts: Any) -> Quantized:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 8, (6, 8), generator=draw).to(torch.uint8)
    return Quantized(codes, 3, torch.rand((6, 2), generator=draw).half().float(), **parts)


@pytest.mark.parametrize("kind", ["plain", "zeros", "levels", "row levels", "columns"])
def test_a_packed_module_is_the_formula(kind: str) -> None:
    parts: dict[str, Any] = {
        "zeros": {"zeros": torch.arange(12.0).view(6, 2) % 8},
        "levels": {"levels": torch.linspace(-1, 1, 8).half().float()[None]},
        "row levels": {"levels": torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).half().float()},
        "columns": {"columns": torch.linspace(0.5, 2, 8).half().float()},
    }.get(kind, {})
    quantized = matrix(**parts)
    expected = torch.empty(6, 8)
    for o in range(6):
        for i in range(8):
            code, group = int(quantized.codes[o, i]), i // 4
            zero = float(quantized.zeros[o, group]) if quantized.zeros is not None else 4.0
            value = float(quantized.levels[o if len(quantized.levels) > 1 else 0, code]) if quantized.levels is not None else code - zero
            expected[o, i] = quantized.scales[o, group] * value * (1 if quantized.columns is None else quantized.columns[i])
    linear = nn.Linear(8, 6)
    packed = packed_linear(quantized, linear)
    torch.testing.assert_close(packed.weight, expected)
    given_rows = torch.randn(3, 5, 8)
    torch.testing.assert_close(packed(given_rows), given_rows @ expected.T + linear.bias)
    numbers = torch.tensor([[0, 5], [2, 2]])
    torch.testing.assert_close(packed_embedding(quantized)(numbers), expected[numbers])


def test_large_matrices_are_unpacked_in_parts(monkeypatch: Any) -> None:
    packed = packed_linear(matrix(), nn.Linear(8, 6))
    whole = packed.weight
    monkeypatch.setattr("recompress.models.packed.modules.CHUNK", 9)
    assert torch.equal(packed.weight, whole)
    assert torch.equal(packed.matrix(torch.tensor([5, 0, 3])), whole[[5, 0, 3]])


@pytest.fixture(scope="module")
def packed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packed")
    method = get_method("rtn")
    checkpoint = method.run(checkpoint_of("llama"), method.config(bits=3, group_size=8, embeddings=True), inputs_of("llama", place))
    save(replace(checkpoint, info=replace(checkpoint.info, runtime="packed", steps=("rtn",))), place / "model")
    return place / "model"


def test_what_is_read_back_answers_the_same_and_shares_its_embedding(packed_model: Path) -> None:
    checkpoint = load(packed_model)
    network: Any = checkpoint.torch_network
    assert isinstance(network.get_input_embeddings(), PackedEmbedding)
    assert isinstance(network.lm_head, PackedLinear)
    assert network.lm_head.codes is network.get_input_embeddings().codes
    assert "lm_head.codes" not in load_file(packed_model / "model.safetensors")
    features = features_of(checkpoint, "llama")
    again = runtime_of(load(packed_model)).logits(features)
    assert all((a == b).all() for a, b in zip(runtime_of(checkpoint).logits(features), again, strict=True))
    dense = checkpoint_of("llama")
    assert parameters(packed_model) == parameters_in(checkpoint) == parameters_in(dense)
    save(checkpoint, packed_model.parent / "copy")
    assert (packed_model.parent / "copy" / "model.safetensors").read_bytes() == (packed_model / "model.safetensors").read_bytes()


PART = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({f"{PART}.form": torch.tensor([32, 9], dtype=torch.int32)}), "do not fit each other"),
        (lambda t: t.update({f"{PART}.form": torch.tensor([-8, 3], dtype=torch.int32)}), "do not fit each other"),
        (lambda t: t.update({f"{PART}.form": torch.tensor([32, 3 + 256 * 101], dtype=torch.int32)}), "do not fit each other"),
        (lambda t: t.update({f"{PART}.form": torch.tensor([32], dtype=torch.int32)}), "incomplete"),
        (lambda t: t.update({f"{PART}.scales": t[f"{PART}.scales"].float()}), "another type"),
        (lambda t: t.update({f"{PART}.scales": t[f"{PART}.scales"][:, :3]}), "do not fit each other"),
        (lambda t: t.update({f"{PART}.codes": t[f"{PART}.codes"][:, :-1]}), "do not fit each other"),
        (
            lambda t: t.update(
                {f"{PART}.codes": t[f"{PART}.codes"][:-1], f"{PART}.scales": t[f"{PART}.scales"][:-1], f"{PART}.zeros": t[f"{PART}.zeros"][:-1]}
            ),
            "do not fit",
        ),
        (lambda t: t.pop(f"{PART}.form"), "incomplete"),
        (lambda t: t.pop(f"{PART}.zeros"), None),
        (lambda t: t.update({"model.nowhere.codes": t[f"{PART}.codes"]}), "no such part|incomplete"),
        (
            lambda t: t.update({"model.norm.codes": t[f"{PART}.codes"], "model.norm.form": t[f"{PART}.form"], "model.norm.scales": t[f"{PART}.scales"]}),
            "no matrix",
        ),
    ],
)
def test_broken_packed_weights_are_refused_in_one_line(change: Any, message: str | None, packed_model: Path, tmp_path: Path) -> None:
    """But for a missing zero point, which makes another model of it: only a digest can tell."""
    shutil.copytree(packed_model, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    change(tensors)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    if message is None:
        load(tmp_path / "model")
        return
    with pytest.raises(IntegrityError, match=message) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_the_runtime_and_the_weights_must_agree(packed_model: Path, tmp_path: Path) -> None:
    shutil.copytree(packed_model, tmp_path / "model")
    info = tmp_path / "model" / "recompress.json"
    info.write_text(info.read_text().replace('"packed"', '"torch"'))
    with pytest.raises(IntegrityError, match="the runtime is torch, but"):
        load(tmp_path / "model")


def test_a_module_that_stands_in_two_places_is_replaced_in_both() -> None:
    shared = nn.Linear(8, 6)
    network = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared, nn.Linear(6, 8))})
    place(network, "b.0", packed_linear(matrix(), shared))
    assert isinstance(network.get_submodule("a.0"), PackedLinear)
    assert network.get_submodule("a.0") is network.get_submodule("b.0")
    assert isinstance(network.get_submodule("b.1"), nn.Linear)


def test_a_packed_embedding_of_another_size_than_the_config_says_is_refused(tmp_path: Path) -> None:
    """Numbers of tokens would lead to other rows, or to none."""
    save(checkpoint_of("roberta"), tmp_path / "source")
    rtn = get_method("rtn")
    run_step("rtn", rtn.config(embeddings=True), tmp_path / "source", tmp_path / "packed", inputs_of("roberta", tmp_path / "work"))
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 3}))
    with pytest.raises(IntegrityError, match=r"word_embeddings is stored as \["):
        load(tmp_path / "packed")
