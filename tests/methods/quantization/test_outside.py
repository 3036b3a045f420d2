"""Token embeddings and output layers in bits of their own: codes by hand, what comes behind packing, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recompress.errors import EffectMissing, InputError
from recompress.export import export
from recompress.methods.chain import check_chain
from recompress.methods.quantization import rtn
from recompress.methods.registry import get_method
from recompress.models.checkpoint import load
from recompress.models.gguf.reading import read_gguf
from recompress.models.gguf.tensors import is_tied
from recompress.models.packed import Packed, PackedEmbedding, PackedLinear
from recompress.runtimes import open_runtime, runtime_of
from tests import six
from tests.methods.quantization.decoder_steps import source_of, step

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS: dict[str, dict[str, Any]] = {
    "rtn": {},
    "gptq": {"calibration_examples": 8},
    "awq": {"calibration_examples": 8},
    "signround": {"calibration_examples": 8, "steps": 40},
}
OWN = {"tie_word_embeddings": False}


def nearest(weight: Tensor, bits: int, size: int) -> Tensor:
    """Each group of each row on the steps between its ends and zero, number by number; scales rounded up to 11 binary digits."""
    found = weight.clone()
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], size):
            group = weight[row, start : start + size].double()
            low, high = min(0.0, float(group.min())), max(0.0, float(group.max()))
            wide = (high - low) / (2**bits - 1)
            digit = 2.0 ** (np.floor(np.log2(wide)) - 10)
            scale = np.ceil(wide / digit) * digit
            zero = round(-low / scale)
            codes = (group / scale).round().add(zero).clamp(0, 2**bits - 1)
            found[row, start : start + size] = ((codes - zero) * scale).float()
    return found


def bits_in(network: Any) -> set[int]:
    """Of the matrices of the layers."""
    return {module.bits for name, module in network.named_modules() if isinstance(module, Packed) and "layers" in name}


@pytest.mark.parametrize("name", METHODS)
def test_embeddings_have_bits_of_their_own_and_a_tied_output_layer_follows(name: str, tmp_path: Path) -> None:
    source = source_of("llama", tmp_path)
    table = load(source).torch_network.get_input_embeddings().weight.detach()
    sizes = []
    for bits in (4, 8):
        report = step(name, source, tmp_path / f"packed-{bits}", bits=3, group_size=16, embeddings=bits, **METHODS[name])
        network, sizes = load(tmp_path / f"packed-{bits}").torch_network, [*sizes, report.size_bytes]
        embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
        assert isinstance(embedding, PackedEmbedding)
        assert isinstance(output, PackedLinear)
        assert (embedding.bits, output.bits, bits_in(network), is_tied(network)) == (bits, bits, {3}, True)
        torch.testing.assert_close(embedding.weight, nearest(table, bits, 16), rtol=1e-5, atol=1e-6)
    assert sizes[1] - sizes[0] == pytest.approx(table.numel() // 2, abs=64), "headers are padded"


@pytest.mark.parametrize("name", METHODS)
def test_an_output_layer_of_its_own_is_packed_and_the_embeddings_are_not(name: str, tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, **OWN)
    was = load(source).torch_network
    step(name, source, tmp_path / "packed", bits=4, group_size=16, output=8, **METHODS[name])
    network = load(tmp_path / "packed").torch_network
    output = network.get_output_embeddings()
    assert isinstance(output, PackedLinear)
    assert (output.bits, bits_in(network)) == (8, {4})
    torch.testing.assert_close(output.weight, nearest(was.get_output_embeddings().weight.detach(), 8, 16), rtol=1e-5, atol=1e-6)
    assert torch.equal(network.get_input_embeddings().weight, was.get_input_embeddings().weight)


def test_true_stands_for_the_bits_of_the_layers(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, **OWN)
    step("rtn", source, tmp_path / "packed", bits=3, embeddings=True, output=True)
    network = load(tmp_path / "packed").torch_network
    assert {module.bits for module in network.modules() if isinstance(module, Packed)} == {3}


@pytest.mark.parametrize("scales", ["minmax", "learned"])
def test_both_are_trained_with_their_rounding(scales: str, tmp_path: Path) -> None:
    dials = {"bits": 4, "symmetric": True, "scales": scales, "epochs": 1, "batch_size": 8}
    step("qat", source_of("llama", tmp_path, **OWN), tmp_path / "packed", embeddings=8, output=3, **dials)
    network = load(tmp_path / "packed").torch_network
    assert (network.get_input_embeddings().bits, network.get_output_embeddings().bits, bits_in(network)) == (8, 3, {4})


def test_searched_scales_are_searched_there_too(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, **OWN)
    output = load(source).torch_network.get_output_embeddings().weight.detach()
    lost = {}
    for scales in ("minmax", "mse"):
        step("rtn", source, tmp_path / scales, bits=4, output=3, scales=scales)
        lost[scales] = float((load(tmp_path / scales).torch_network.get_output_embeddings().weight - output).square().sum())
    assert lost["mse"] < 0.99 * lost["minmax"]


def test_a_file_of_llama_cpp_holds_them_in_their_blocks(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, **OWN)
    step("gptq", source, tmp_path / "packed", group_size=32, symmetric=True, embeddings=8, output=8, calibration_examples=8)
    step("gguf_nbits", tmp_path / "packed", tmp_path / "made", rest="f32")
    tensors, network = read_gguf(tmp_path / "made" / "model.gguf").tensors, load(tmp_path / "packed").torch_network
    for name, module in (("token_embd.weight", network.get_input_embeddings()), ("output.weight", network.get_output_embeddings())):
        assert tensors[name].kind == "Q8_0"
        np.testing.assert_allclose(tensors[name].numbers(), module.matrix(), atol=1e-6)
    assert {held.kind for name, held in tensors.items() if "blk" in name and len(held.shape) == 2} == {"Q4_0"}


@pytest.mark.parametrize("method", ["onnx_nbits", "onnx_genai_nbits"])
def test_onnx_runtime_multiplies_and_looks_up_their_codes(method: str, tmp_path: Path) -> None:
    step("rtn", source_of("llama", tmp_path, **OWN), tmp_path / "packed", group_size=16, embeddings=4, output=8)
    step(method, tmp_path / "packed", tmp_path / "made", accuracy_level=1)
    packed = load(tmp_path / "packed")
    features = six.features_of(packed, "llama")
    for was, now in zip(runtime_of(packed).logits(features), open_runtime(tmp_path / "made").logits(features), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-3, atol=1e-4)


def test_compressed_tensors_writes_them_in_floats(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    step("rtn", source_of("llama", tmp_path, **OWN), tmp_path / "packed", group_size=16, embeddings=8, output=8)
    assert export(tmp_path / "packed", tmp_path / "out", "compressed-tensors", examples=six.texts(6)).agreement.largest_change < 1e-5


def test_what_was_written_before_is_written_as_before() -> None:
    for name in ("rtn", "gptq", "awq", "signround", "qat"):
        assert "output" not in get_method(name).config().model_dump(mode="json")
        assert get_method(name).config(output=8).model_dump(mode="json")["output"] == 8


@pytest.mark.parametrize(
    ("dials", "config", "said"),
    [
        ({"output": 8}, {}, "output is 8, and this llama has an output layer that is tied to its embeddings; set embeddings"),
        ({"output": True, "embeddings": True}, {}, "output is true, and this llama has an output layer that is tied"),
        ({"output": 8, "group_size": 24}, OWN, "group_size 24 does not divide"),
    ],
)
def test_what_cannot_be_packed_is_refused(dials: dict[str, Any], config: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        step("rtn", source_of("llama", tmp_path, **config), tmp_path / "packed", **dials)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("name", [*METHODS, "qat"])
def test_a_classifier_is_told_before_anything_is_trained(name: str) -> None:
    steps = [(name, get_method(name).config(output=8))]
    with pytest.raises(InputError, match="output is 8, and models for text-classification have no output layer over a vocabulary; leave output out"):
        check_chain(steps, "text-classification", "llama")
    check_chain(steps, "language-modelling", "llama")


@pytest.mark.parametrize("dial", ["bits", "embeddings", "output"])
def test_eight_bits_with_zero_points_have_no_blocks_in_gguf(dial: str) -> None:
    steps = [("rtn", get_method("rtn").config(group_size=32, **{dial: 8})), ("gguf_nbits", get_method("gguf_nbits").config())]
    with pytest.raises(InputError, match=f"gguf_nbits cannot take {dial}: 8 with zero points"):
        check_chain(steps, "language-modelling", "llama")


def left_out(network: Any, config: Any) -> None:
    """Nothing outside is packed."""


def in_the_bits_of_the_layers(network: Any, config: Any) -> None:
    rtn_pack(network, config.model_copy(update={"output": True}))


def turned_over(network: Any, config: Any) -> None:
    network.get_output_embeddings().weight.data = network.get_output_embeddings().weight.data.flip(0)
    rtn_pack(network, config)


rtn_pack = rtn.pack_outside


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(left_out, "output layer packed"), (in_the_bits_of_the_layers, "bytes of all tensors"), (turned_over, "largest rounding of the output layer")],
)
def test_an_output_layer_that_is_wrong_is_refused(wrong: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("llama", tmp_path, **OWN)
    monkeypatch.setattr(rtn, "pack_outside", wrong)
    with pytest.raises(EffectMissing, match=said):
        step("rtn", source, tmp_path / "packed", bits=4, output=8)
    assert not (tmp_path / "packed").exists()
