"""GGUF files: blocks by hand, codes that are kept, what a file cannot say, and a proof that notices every way in which a file could be otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recompress.errors import EffectMissing, InputError
from recompress.integrity.digest import sha256_file
from recompress.methods.chain import check_chain
from recompress.methods.quantization import gguf as rounding
from recompress.methods.quantization import gguf_file
from recompress.methods.quantization.gguf import Gguf, beyond
from recompress.methods.quantization.gguf_nbits import GgufNbits
from recompress.methods.registry import get_method
from recompress.models.architecture import ARCHITECTURES, layers_of
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.gguf import tensors
from recompress.models.gguf.blocks import blocks_of
from recompress.models.gguf.reading import read_gguf
from recompress.models.packed import PackedEmbedding, Quantized
from recompress.models.surgery import keep_heads, keep_layers, keep_neurons, note_heads, note_neurons
from recompress.settings.base import Settings
from tests import six
from tests.methods.quantization.decoder_steps import source_of, step

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("gguf")


def by_hand(stored: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """The numbers of each row of blocks, one number after another, by the definition in llama.cpp."""
    head, size = {"Q4_0": (2, 18), "Q4_1": (4, 20), "Q8_0": (2, 34)}[kind]
    rows = []
    for row in stored.reshape(len(stored), -1, size):
        numbers: list[float] = []
        for block in row:
            scale = float(np.frombuffer(block[:2].tobytes(), np.float16)[0])
            lowest = float(np.frombuffer(block[2:4].tobytes(), np.float16)[0])
            for i in range(32):
                byte = int(block[head + (i if kind == "Q8_0" else i % 16)])
                code = byte - 256 * (byte > 127) if kind == "Q8_0" else byte % 16 if i < 16 else byte // 16
                numbers.append(scale * code if kind == "Q8_0" else scale * (code - 8) if kind == "Q4_0" else scale * code + lowest)
        rows.append(numbers)
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize("kind", ["q8_0", "q4_1", "q4_0"])
def test_each_weight_lies_on_its_nearest_step(kind: str, tmp_path: Path) -> None:
    """No step of a block is nearer to a weight than the one that it was given, but the one that Q4_0 lacks."""
    source = source_of("llama", tmp_path)
    step("gguf", source, tmp_path / "made", weights=kind)
    held = read_gguf(tmp_path / "made" / "model.gguf").tensors["blk.0.ffn_down.weight"]
    assert held.kind == kind.upper()
    stored = by_hand(np.asarray(held.stored), held.kind)
    np.testing.assert_allclose(stored, held.numbers(), rtol=1e-6)
    weight = layers_of(load(source).torch_network)[0].neurons_out.weight.detach().numpy()
    for wanted, given in zip(weight.reshape(-1, 32), stored.reshape(-1, 32), strict=True):
        low, high = (wanted.min(), wanted.max()) if kind == "q4_1" else (-np.abs(wanted).max(), np.abs(wanted).max())
        span = (high - low) / {"q8_0": 254, "q4_1": 15, "q4_0": 16}[kind]
        error = np.abs(wanted - given)
        assert np.sort(error)[-2 if kind == "q4_0" else -1] <= 0.55 * span or kind == "q4_0"
        assert np.median(error) <= 0.5 * span
        assert error.max() <= (1.01 if kind == "q4_0" else 0.55) * span


@pytest.mark.parametrize(("bits", "symmetric", "kind"), [(4, True, "Q4_0"), (3, True, "Q4_0"), (4, False, "Q4_1"), (2, False, "Q4_1"), (8, True, "Q8_0")])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_packed_codes_stand_in_blocks_as_they_are(bits: int, symmetric: bool, kind: str, group: int) -> None:
    """Every code of a matrix, read by hand out of the bytes, in another order of its rows."""
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (6, 128), generator=draw, dtype=torch.uint8)
    scales = torch.rand((6, 128 // group), generator=draw).add_(0.5).half().float()
    zeros = None if symmetric else torch.randint(0, 1 << bits, (6, 128 // group), generator=draw)
    packed = PackedEmbedding(Quantized(codes, bits, scales, zeros).tensors(), 6, 128)
    order = torch.tensor([3, 1, 4, 0, 5, 2])
    coded = blocks_of("here", packed, order)
    assert coded.kind == kind
    stored = by_hand(coded.stored, kind)
    exact = packed.matrix()[order].numpy()
    if symmetric:
        np.testing.assert_array_equal(stored, exact)
    else:
        np.testing.assert_allclose(stored, exact, atol=float(scales.max()) * 2.0**-7)
        steps = (stored - stored.reshape(6, -1, 32).min(-1).repeat(32, -1)) / scales[order].repeat_interleave(group, 1).numpy()
        np.testing.assert_allclose(steps.round(), steps, atol=0.01)


CHAINS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gptq": ("gptq", {"group_size": 32, "calibration_examples": 8}, "Q4_1"),
    "gptq-symmetric": ("gptq", {"group_size": 32, "symmetric": True, "calibration_examples": 8, "embeddings": True}, "Q4_0"),
    "signround": ("signround", {"group_size": 32, "symmetric": True, "calibration_examples": 8, "steps": 8}, "Q4_0"),
    "awq": ("awq", {"group_size": 32, "calibration_examples": 8, "foldable": True}, "Q4_1"),
    "rtn-rows": ("rtn", {"bits": 8, "symmetric": True}, "Q8_0"),
}


@pytest.mark.parametrize("family", six.DECODERS)
@pytest.mark.parametrize("name", CHAINS)
def test_what_other_methods_packed_is_what_the_file_holds(name: str, family: str, tmp_path: Path) -> None:
    method, dials, kind = CHAINS[name]
    source = source_of(family, tmp_path)
    step(method, source, tmp_path / "packed", family, **dials)
    report = step("gguf_nbits", tmp_path / "packed", tmp_path / "made", family, rest="f32")
    file = read_gguf(tmp_path / "made" / "model.gguf")
    kinds = {held.kind for tensor, held in file.tensors.items() if "blk" in tensor and len(held.shape) == 2}
    assert kinds == {kind}
    assert file.tensors["token_embd.weight"].kind == (kind if dials.get("embeddings") else "F32")
    assert report.parameters == report.parameters_before
    network = load(tmp_path / "packed").torch_network
    linear = layers_of(network)[1].neurons_in[-1]
    factors = 1 if linear.columns is None else linear.columns.float()
    np.testing.assert_allclose(file.tensors["blk.1.ffn_up.weight"].numbers(), linear.weight / factors, atol=4e-3)


def widen(checkpoint: Checkpoint) -> None:
    """Some channels of what the norms give are large, so that AWQ has something to widen."""
    for name, parameter in checkpoint.torch_network.named_parameters():
        if ("norm" in name or "ln_" in name) and name.endswith("weight"):
            parameter.data[3:7] *= 12


def awq_packed(family: str, place: Path) -> Path:
    step("awq", source_of(family, place, widen), place / "packed", family, group_size=32, calibration_examples=8, foldable=True)
    return place / "packed"


@pytest.mark.parametrize("family", six.DECODERS)
def test_factors_of_columns_go_into_the_norm_before(family: str, tmp_path: Path) -> None:
    """All matrices behind a norm have the same, others none; the file's norm is the model's, times these."""
    network = load(awq_packed(family, tmp_path)).torch_network
    step("gguf_nbits", tmp_path / "packed", tmp_path / "made", family, rest="f32")
    file = read_gguf(tmp_path / "made" / "model.gguf")
    norms = ARCHITECTURES[family].norms
    for i, layer in enumerate(layers_of(network)):
        assert layer.out.columns.eq(1).all()
        assert layer.neurons_out.columns.eq(1).all()
        for name, norm, linears in (("attn_norm", norms[0], (layer.query, layer.key, layer.value)), ("ffn_norm", norms[1], layer.neurons_in)):
            assert all(linear.columns.equal(linears[0].columns) for linear in linears)
            assert linears[0].columns.float().std() > 0.01, "there was nothing to fold"
            for part in ("weight", "bias") if family == "gpt2" else ("weight",):
                own = getattr(layer.module.get_submodule(norm), part).detach()
                np.testing.assert_allclose(file.tensors[f"blk.{i}.{name}.{part}"].numbers(), own * linears[0].columns.float(), rtol=1e-6)


def test_factors_that_no_norm_took_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    awq_packed("llama", tmp_path)
    monkeypatch.setattr(tensors.Place, "is_norm", property(lambda place: False))
    monkeypatch.setattr(tensors.Place, "is_matrix", property(lambda place: place.part == "weight" and "norm" not in place.name))
    with pytest.raises(EffectMissing, match="torch's answers with the file's numbers apart from the packed network's"):
        step("gguf_nbits", tmp_path / "packed", tmp_path / "made", rest="f32")


def test_factors_that_differ_behind_a_norm_or_stand_in_the_stream_are_refused(tmp_path: Path) -> None:
    step("awq", source_of("llama", tmp_path, widen), tmp_path / "packed", group_size=32, calibration_examples=8)
    with pytest.raises(InputError, match="has a factor for each column"):
        step("gguf_nbits", tmp_path / "packed", tmp_path / "made")
    save(six.checkpoint_of("bert"), tmp_path / "bert")
    with pytest.raises(InputError, match="foldable: true needs norms that stand before"):
        step("awq", tmp_path / "bert", tmp_path / "other", "bert", foldable=True)


@pytest.mark.parametrize(
    ("method", "dials", "said"),
    [
        ("rtn", {"group_size": 16}, "groups of 16 columns"),
        ("rtn", {"bits": 8}, "bits: 8 with zero points"),
        ("awq", {"group_size": 32}, "awq's factor for each column, .*; set foldable: true in awq"),
        ("codebook", {}, "no even steps"),
        ("llm_int8", {}, "keeps columns in 16 bits"),
        ("finetune", {}, "needs weights that are packed"),
    ],
)
def test_chains_that_no_block_can_say_are_refused_before_anything_runs(method: str, dials: dict[str, Any], said: str) -> None:
    steps: list[tuple[str, Settings]] = [(method, get_method(method).config(**dials)), ("gguf_nbits", GgufNbits())]
    with pytest.raises(InputError, match=said):
        check_chain(steps, six.LANGUAGE, "llama")


def test_nothing_follows_a_file_and_no_encoder_becomes_one() -> None:
    with pytest.raises(InputError, match="wanda cannot follow gguf"):
        check_chain([("gguf", Gguf()), ("wanda", get_method("wanda").config())], six.LANGUAGE, "llama")
    with pytest.raises(InputError, match="gguf does not support the benchmark 'text-classification'"):
        check_chain([("gguf", Gguf())], "text-classification", "llama")
    with pytest.raises(InputError, match="gguf does not support the architecture 'bert'"):
        check_chain([("gguf", Gguf())], six.LANGUAGE, "bert")


def cut_layers(checkpoint: Checkpoint) -> None:
    keep_layers(checkpoint.torch_network, [1])


def cut_neurons(checkpoint: Checkpoint) -> None:
    for layer in layers_of(checkpoint.torch_network):
        keep_neurons(layer, range(3, 51))
    note_neurons(checkpoint.torch_network)


def cut_heads(checkpoint: Checkpoint) -> None:
    for layer in layers_of(checkpoint.torch_network):
        keep_heads(layer, (2, 3))
    note_heads(checkpoint.torch_network)


PRUNED = {"layers": cut_layers, "neurons": cut_neurons, "heads": cut_heads}


@pytest.mark.parametrize(("family", "name"), [("llama", "layers"), ("llama", "neurons"), ("llama", "heads"), ("gpt2", "layers"), ("gpt2", "neurons")])
def test_pruned_shapes_are_served(family: str, name: str, tmp_path: Path) -> None:
    """The proof holds llama.cpp's answers against torch's. Of 48 neurons a block of 32 leaves 16 over: such a matrix stands there in 16 bits."""
    step("gguf", source_of(family, tmp_path, PRUNED[name]), tmp_path / "made", family, weights="q4_0")
    kinds = {tensor: held.kind for tensor, held in read_gguf(tmp_path / "made" / "model.gguf").tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == ("F16" if name == "neurons" else "Q4_0")
    assert kinds["blk.0.ffn_up.weight"] == "Q4_0"
    assert kinds["token_embd.weight"] == "Q8_0"


@pytest.mark.parametrize("family", six.DECODERS)
def test_a_trimmed_vocabulary_is_served_with_its_tokenizer(family: str, tmp_path: Path) -> None:
    step("trim_vocabulary", source_of(family, tmp_path), tmp_path / "trimmed", family, min_count=20)
    step("gguf", tmp_path / "trimmed", tmp_path / "made", family, weights="f16")
    before, rows = load(tmp_path / "source"), len(load(tmp_path / "trimmed").tokenizer)
    assert rows < len(before.tokenizer)
    file = read_gguf(tmp_path / "made" / "model.gguf")
    assert file.shapes["token_embd.weight"][0] == rows == len(file.values["tokenizer.ggml.tokens"])


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path)
    for name in ("one", "two"):
        step("gguf", source, tmp_path / name, weights="q4_1")
    assert sha256_file(tmp_path / "one" / "model.gguf") == sha256_file(tmp_path / "two" / "model.gguf")


def test_unequal_layers_leave_nothing(tmp_path: Path) -> None:
    source = source_of("llama", tmp_path, lambda checkpoint: keep_neurons(layers_of(checkpoint.torch_network)[0], range(32)))
    with pytest.raises(InputError, match="one number of neurons for all layers"):
        step("gguf", source, tmp_path / "made")
    assert not (tmp_path / "made").exists()


SPOILT: dict[str, tuple[Any, str, Any, str]] = {
    "rows in another order": (tensors, "rows_of", lambda place: None, "llama.cpp's answers apart from torch's"),
    "another kind": (rounding, "as_kind", lambda place, kind: _as_kind(place, "F16"), "matrices that are stored otherwise than asked"),
    "rounded twice": (rounding, "as_kind", lambda place, kind: _coarse(place, kind), "weights further away than their nearest step"),
}


def _as_kind(place: tensors.Place, kind: str) -> Any:
    from recompress.models.gguf.writing import as_kind

    return as_kind(place, kind)


def _coarse(place: tensors.Place, kind: str) -> Any:
    """As if weights had been rounded to 3 bits before."""
    import gguf

    from recompress.models.gguf.writing import Coded

    weight = tensors.numbers_at(place).numpy()
    step = np.abs(weight).max() / 4
    return Coded(kind, gguf.quantize((weight / step).round() * step, gguf.GGMLQuantizationType[kind]))


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_is_otherwise_than_promised_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room, attribute, instead, said = SPOILT[name]
    source = source_of("llama", tmp_path)
    monkeypatch.setattr(room, attribute, instead)
    with pytest.raises(EffectMissing, match=said):
        step("gguf", source, tmp_path / "made", weights="q8_0")
    assert not (tmp_path / "made").exists()


def test_codes_that_are_not_those_that_were_packed_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from recompress.models.gguf import blocks

    step("rtn", source_of("llama", tmp_path), tmp_path / "packed", group_size=32, symmetric=True)
    nibbles = blocks._nibbles
    monkeypatch.setattr(blocks, "_nibbles", lambda codes: nibbles(codes.flip(-1)))
    with pytest.raises(EffectMissing, match="codes that are not those that were packed"):
        step("gguf_nbits", tmp_path / "packed", tmp_path / "made")


def test_a_tokenizer_that_cuts_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from recompress.models.gguf import tokens

    told = tokens.values_of

    def reversed_merges(*given: Any) -> dict[str, Any]:
        values = told(*given)
        return values | {"tokenizer.ggml.merges": values["tokenizer.ggml.merges"][::-1]}

    monkeypatch.setattr(tokens, "values_of", reversed_merges)
    with pytest.raises(EffectMissing, match="texts that the file's own tokenizer cuts otherwise"):
        step("gguf", source_of("llama", tmp_path), tmp_path / "made")


def test_how_far_a_weight_may_lie_from_what_it_was() -> None:
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
    for kind, step_size in (("Q8_0", 1 / 127), ("Q4_1", 1 / 15), ("Q4_0", 1 / 8)):
        assert beyond(weight, weight + 0.45 * step_size * np.array([1, -1] * 32, dtype=np.float32) / 4, kind) == 0
        assert beyond(weight, weight + 2.5 * step_size, kind) == 64
    assert (beyond(weight, weight, "F32"), beyond(weight, weight + 1e-3, "F32")) == (0, 64)
    assert (beyond(weight, weight.astype(np.float16).astype(np.float32), "F16"), beyond(weight, weight + 1e-2, "F16")) == (0, 64)


def test_answers_apart_are_a_share_of_their_size() -> None:
    one = [np.ones((2, 3)), np.ones((1, 3))]
    assert gguf_file.apart(one, one) == 0
    assert gguf_file.apart(one, [2 * rows for rows in one]) == 1
    assert gguf_file.apart(one, [np.ones((2, 3)), np.zeros((1, 3))]) == pytest.approx((1 / 3) ** 0.5)
