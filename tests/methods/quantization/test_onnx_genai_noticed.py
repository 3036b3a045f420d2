"""Folders for ONNX Runtime GenAI that are otherwise than promised: the proof notices each of them, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import EffectMissing
from recompress.methods.quantization import genai_file, onnx_genai, onnx_genai_nbits
from recompress.methods.quantization.onnx_genai import OnnxGenai
from recompress.methods.registry import get_method
from recompress.models.architecture import ARCHITECTURES
from recompress.runtimes.genai import decoder, matrices
from tests.methods.quantization.decoder_steps import source_of, step

pytest.importorskip("onnxruntime_genai")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("onnx_genai")


def _coarse(name: str, weight: torch.Tensor, kind: Any, config: OnnxGenai) -> Any:
    """As if weights had been rounded to 3 bits before."""
    step_size = weight.abs().max() / 4
    return CODED(name, (weight / step_size).round() * step_size, kind, config)


CODED = onnx_genai.coded
LLAMA = ARCHITECTURES["llama"]
APART = "answers apart from torch's with the file's numbers, inputs as floats"
SPOILT: dict[str, tuple[Any, str, Any, str]] = {
    "rounded twice": (onnx_genai, "coded", _coarse, "weights further away than their nearest step"),
    "searched and rounded twice": (onnx_genai, "coded", _coarse, "squared error of weights in int4, below 99.9% of that with scales: minmax"),
    "not rounded": (onnx_genai, "kind_of", None, "matrices that are stored otherwise than asked"),
    "not rotated": (decoder, "architecture_of", lambda _: replace(LLAMA, ratio_attributes=()), APART),
    "another activation": (decoder, "ACTIVATIONS", {"silu": "relu"}, APART),
    "another norm": (decoder, "architecture_of", lambda _: replace(LLAMA, norms=("post_attention_layernorm", "input_layernorm")), APART),
    "other levels": (matrices, "product", None, "products at another accuracy level"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_folder_that_is_otherwise_than_promised_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room, attribute, instead, said = SPOILT[name]
    source, dials = source_of("llama", tmp_path), {"scales": "minmax"} if name == "rounded twice" else {}
    if name == "not rounded":
        written = onnx_genai.written
        monkeypatch.setattr(onnx_genai, "written", lambda checkpoint, inputs, coding, *rest: written(checkpoint, inputs, lambda name, module: None, *rest))
    elif name == "other levels":
        monkeypatch.setattr(matrices, "product", lambda node, name, blocks, level: PRODUCT(node, name, blocks, 1))
    else:
        monkeypatch.setattr(room, attribute, instead)
    with pytest.raises(EffectMissing, match=said):
        step("onnx_genai", source, tmp_path / "made", **dials)
    assert not (tmp_path / "made").exists()


PRODUCT = matrices.product


def test_codes_that_are_not_those_that_were_packed_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    step("rtn", source_of("llama", tmp_path), tmp_path / "packed", group_size=32, symmetric=True)
    blocks = onnx_genai_nbits.packed_blocks

    def flipped(network: Any) -> Any:
        return {name: block._replace(codes=block.codes.flip(-1)) for name, block in blocks(network).items()}

    written = onnx_genai_nbits.written
    monkeypatch.setattr(
        onnx_genai_nbits,
        "written",
        lambda checkpoint, inputs, coding, *rest: written(checkpoint, inputs, lambda name, module: flipped(checkpoint.torch_network).get(name), *rest),
    )
    with pytest.raises(EffectMissing, match="weights that are not those of the packed network, number for number"):
        step("onnx_genai_nbits", tmp_path / "packed", tmp_path / "made")


def test_a_loop_that_writes_otherwise_and_a_tokenizer_of_no_known_kind_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = source_of("llama", tmp_path)
    monkeypatch.setattr(genai_file.GenaiRuntime, "written_by_the_library", lambda self, prompt, count: [7] * count)
    with pytest.raises(EffectMissing, match="prompts behind which the library's own loop writes otherwise"):
        step("onnx_genai", source, tmp_path / "made")
    monkeypatch.undo()
    monkeypatch.setattr(genai_file, "save_tokenizer", lambda tokenizer, place: None)
    with pytest.raises(EffectMissing, match="share of the data's texts that the library's own tokenizer cuts otherwise"):
        step("onnx_genai", source, tmp_path / "other")
