"""Packed weights in folders for vLLM: unpacked here by hand, read back by transformers, and every code and scale where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recompress.errors import InputError, IntegrityError
from recompress.export import FORMATS, check_export, compressed_tensors_folder, export, packed_schemes
from recompress.methods.quantization.grid import FewBits, pack_outside, rounded
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import WEIGHTS_FILE, Checkpoint, load, read_info, save
from recompress.models.files import read_tensors
from recompress.models.packed import Packed, PackedLinear, Quantized, Vectors, WithOutliers, packed_linear, place
from recompress.models.surgery import weight_of
from tests.export.test_export import model
from tests.six import checkpoint_of, examples_of, texts

pytest.importorskip("compressed_tensors")
TO = "compressed-tensors"
GROUP = 16
QUICK = {("rtn", 4, False), ("rtn", 8, True), ("gptq", 4, True), ("awq", 4, False), ("rtn", 3, False), ("signround", 4, False)}
OWN: dict[str, dict[str, Any]] = {"awq": {"foldable": True}, "signround": {"steps": 16}}
"""Settings by method, where the defaults do not fit."""
CASES = [
    pytest.param(method, bits, symmetric, marks=() if (method, bits, symmetric) in QUICK else pytest.mark.long)
    for method in ("rtn", "gptq", "awq", "signround", "qat")
    for bits in (2, 3, 4, 8)
    for symmetric in (False, True)
]


def numbers_in(row: np.ndarray, bits: int, count: int) -> list[int]:
    """Codes in 32-bit words, read as one long whole number."""
    whole = sum(int(word) << (32 * place) for place, word in enumerate(row.view(np.uint32)))
    return [whole >> (bits * i) & ((1 << bits) - 1) for i in range(count)]


def by_hand(stored: Mapping[str, Tensor], path: str, bits: int) -> np.ndarray:
    """The matrix that the file says, by its definition and with no line of the library or of this project."""
    rows, columns = stored[f"{path}.weight_shape"].tolist()
    scales = stored[f"{path}.weight_scale"].float().numpy()
    codes = np.array([numbers_in(row, bits, columns) for row in stored[f"{path}.weight_packed"].numpy()])
    zeros = np.full_like(scales, 1 << (bits - 1))
    if f"{path}.weight_zero_point" in stored:
        words = np.ascontiguousarray(stored[f"{path}.weight_zero_point"].numpy().T)
        zeros = np.array([numbers_in(row, bits, rows) for row in words]).T.astype(np.float32)
    size = columns // scales.shape[1]
    matrix: np.ndarray = (codes.astype(np.float32) - zeros.repeat(size, axis=1)) * scales.repeat(size, axis=1)
    return matrix


def without_factors(matrix: Packed) -> np.ndarray:
    floats: np.ndarray = matrix.matrix().numpy()
    return floats / matrix.tensors["columns"].float().numpy() if "columns" in matrix.tensors else floats


def settings_in(out: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((out / "config.json").read_text())["quantization_config"]
    return settings


def bits_of(settings: Mapping[str, Any], path: str) -> int:
    """As the library matches layers to groups: by name, or all that are linear."""
    return next(group["weights"]["num_bits"] for group in settings["config_groups"].values() if path in group["targets"] or group["targets"] == ["Linear"])


def packed_by(bits: Callable[[str], int | None], place_of: Path, *, symmetric: bool = True, group: int | None = GROUP, shrink: float = 1.0) -> Path:
    """A Llama whose layers are rounded in as many bits as ``bits`` says of their names."""
    checkpoint = checkpoint_of("llama")
    network = checkpoint.torch_network
    for name, linear in list(encoder_linears(network)):
        if (chosen := bits(name)) is not None:
            config = FewBits.model_construct(bits=chosen, group_size=group, symmetric=symmetric, embeddings=False, scales="minmax")
            place(network, name, packed_linear(rounded(weight_of(linear) * shrink, config), linear))
    save(Checkpoint(network, checkpoint.tokenizer, replace(checkpoint.info, runtime="packed")), place_of)
    return place_of


@pytest.mark.parametrize(("method", "bits", "symmetric"), CASES)
def test_every_matrix_is_the_one_that_was_judged(tmp_path: Path, method: str, bits: int, symmetric: bool) -> None:
    dials = {"bits": bits, "symmetric": symmetric, "group_size": GROUP} | OWN.get(method, {})
    directory, out = model(tmp_path, "llama", (method, dials)), tmp_path / "out"
    done = export(directory, out, TO, examples=texts(6))
    assert done.agreement.texts >= 6
    assert done.agreement.largest_change < 1e-5
    assert check_export(out, None).to == TO
    stored, settings = read_tensors(out / WEIGHTS_FILE), settings_in(out)
    [group] = settings["config_groups"].values()
    assert group["weights"] | {"num_bits": max(bits, 4), "group_size": GROUP, "strategy": "group", "type": "int", "actorder": None} == group["weights"]
    assert group["weights"]["symmetric"] == (symmetric or bits < 4), "one bit more has room for both sides of zero"
    network = load(directory).torch_network
    packed = {name: module for name, module in network.named_modules() if isinstance(module, PackedLinear)}
    assert len(packed) == 14
    for path, matrix in packed.items():
        ours, theirs = without_factors(matrix), by_hand(stored, path, max(bits, 4))
        np.testing.assert_array_equal(theirs, ours) if method != "awq" else np.testing.assert_allclose(theirs, ours, rtol=3e-7)
        assert stored[f"{path}.weight_packed"].dtype == torch.int32
        assert (f"{path}.weight_zero_point" in stored) == (not group["weights"]["symmetric"])


@pytest.mark.parametrize("symmetric", [True, False])
def test_transformers_reads_it_by_the_lines_of_the_card(tmp_path: Path, symmetric: bool) -> None:
    """Nothing of this project is asked, nothing is said about types, and no code lies in the folder."""
    directory, out = model(tmp_path, "llama", ("rtn", {"group_size": 32, "symmetric": symmetric})), tmp_path / "out"
    export(directory, out, TO, examples=texts(2))
    assert {path.suffix for path in out.iterdir()} == {".json", ".md", ".safetensors"}
    assert "auto_map" not in (out / "config.json").read_text()
    [lines] = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    exec(lines.replace('"FOLDER"', repr(str(out))), known)
    ids = known["tokenizer"]("leo kula nyumba", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        theirs, ours = known["model"](ids).logits, load(directory).torch_network(ids).logits
    np.testing.assert_allclose(theirs.numpy(), ours.numpy(), rtol=1e-5, atol=1e-5)
    assert known["model"].get_submodule("model.layers.0.mlp.up_proj").weight.dtype == torch.float32


FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "llama-classifier", "bert-reader", "bert-pairs", "distilbert-number")


@pytest.mark.parametrize("family", [family if family == "bert" else pytest.param(family, marks=pytest.mark.long) for family in FAMILIES])
def test_encoders_and_heads_answer_as_before(tmp_path: Path, family: str) -> None:
    directory = model(tmp_path, family, ("rtn", {"group_size": 32}))
    done = export(directory, tmp_path / "out", TO, examples=examples_of(family, 6))
    assert done.agreement.texts >= 6
    outer = {"bert": "classifier", "llama-classifier": "score"}.get(family)
    assert outer is None or outer in settings_in(tmp_path / "out")["ignore"]


def test_different_bits_are_groups_and_matrices_that_are_joined_agree(tmp_path: Path) -> None:
    """vLLM joins query, key and value, and the two before the neurons: the narrower are written as wide as the widest, and both in floats where one is."""
    chosen = {"q_proj": 2, "k_proj": 4, "v_proj": 8, "o_proj": 3, "gate_proj": 4, "up_proj": None, "down_proj": 8}
    directory = packed_by(lambda name: chosen[name.rpartition(".")[2]] if ".0." in name else 4, tmp_path / "1")
    export(directory, tmp_path / "out", TO, examples=texts(4))
    stored, settings = read_tensors(tmp_path / "out" / WEIGHTS_FILE), settings_in(tmp_path / "out")
    network = load(directory).torch_network
    written = {path: bits_of(settings, path) for path in (name.removesuffix(".weight_packed") for name in stored if name.endswith(".weight_packed"))}
    first = {path.rpartition(".")[2]: bits for path, bits in written.items() if ".0." in path}
    assert first == {"q_proj": 8, "k_proj": 8, "v_proj": 8, "o_proj": 4, "down_proj": 8}
    assert {bits for path, bits in written.items() if ".1." in path} == {4}
    assert "dequantize" not in settings
    for path, bits in written.items():
        np.testing.assert_array_equal(by_hand(stored, path, bits), network.get_submodule(path).matrix().numpy())  # type: ignore[operator]
    gate, up = (f"model.layers.0.mlp.{name}" for name in ("gate_proj", "up_proj"))
    assert {gate, up, "lm_head"} == set(settings["ignore"])
    assert stored[f"{gate}.weight"].equal(network.get_submodule(gate).matrix())  # type: ignore[operator]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"no packed form of them is served: `{gate}`" in card
    assert "In more bits than there, with the same numbers" in card
    assert f"{(directory / WEIGHTS_FILE).stat().st_size:,}" in card


def test_zero_points_in_two_widths_are_refused_with_the_way_out(tmp_path: Path) -> None:
    directory = packed_by(lambda name: 8 if "mlp" in name else 4, tmp_path / "1", symmetric=False)
    with pytest.raises(
        InputError, match="zero points of one kind in a model, and these are of 4 bits in groups of 16, of 8 bits in groups of 16; set symmetric: true"
    ):
        export(directory, tmp_path / "out", TO)
    assert not (tmp_path / "out").exists()


def test_a_model_with_nothing_left_in_codes_is_refused(tmp_path: Path) -> None:
    directory = packed_by(lambda name: 4 if name.endswith("0.mlp.up_proj") else None, tmp_path / "1")
    with pytest.raises(InputError, match="none of the matrices in its layers can be written in codes"):
        export(directory, tmp_path / "out", TO)


def test_whole_rows_share_a_scale_whatever_their_length(tmp_path: Path) -> None:
    export(packed_by(lambda _: 4, tmp_path / "1", group=None), tmp_path / "out", TO, examples=texts(2))
    [group] = settings_in(tmp_path / "out")["config_groups"].values()
    assert (group["weights"]["strategy"], group["weights"]["group_size"]) == ("channel", None)


@pytest.mark.parametrize(("shrink", "kind"), [(1.0, torch.float16), (1e-7, torch.float32)])
def test_scales_are_in_16_bits_where_these_hold_them(tmp_path: Path, shrink: float, kind: torch.dtype) -> None:
    """Smaller ones stand beside a power of two in our file, which theirs has no place for."""
    directory = packed_by(lambda _: 4, tmp_path / "1", shrink=shrink)
    export(directory, tmp_path / "out", TO, examples=texts(2))
    stored, network = read_tensors(tmp_path / "out" / WEIGHTS_FILE), load(directory).torch_network
    path = "model.layers.0.mlp.up_proj"
    assert stored[f"{path}.weight_scale"].dtype == kind
    np.testing.assert_array_equal(by_hand(stored, path, 4), network.get_submodule(path).matrix().numpy())  # type: ignore[operator]


def test_packed_embeddings_become_floats_and_the_card_says_so(tmp_path: Path) -> None:
    checkpoint = load(packed_by(lambda _: 4, tmp_path / "1"))
    pack_outside(checkpoint.torch_network, FewBits(bits=4, embeddings=True))
    save(checkpoint, tmp_path / "2")
    export(tmp_path / "2", tmp_path / "out", TO, examples=texts(4))
    stored = read_tensors(tmp_path / "out" / WEIGHTS_FILE)
    table: Any = load(tmp_path / "2").torch_network.get_input_embeddings()
    assert stored["model.embed_tokens.weight"].equal(table.matrix())
    assert not any(name.startswith("lm_head") for name in stored), "the output layer is tied to it"
    assert "no packed form of them is served: `model.embed_tokens`" in (tmp_path / "out" / "README.md").read_text()


def odd(kind: str, rows: int, columns: int) -> Quantized | Vectors | WithOutliers:
    """A matrix of these numbers that lies on no even steps, or has factors of its columns."""
    codes, scales = torch.ones((rows, columns), dtype=torch.uint8), torch.full((rows, 1), 0.01)
    if kind == "levels":
        return Quantized(codes, 4, scales, levels=torch.linspace(-1, 1, 16)[None])
    if kind == "vectors":
        return Vectors(torch.ones((rows, columns // 2, 1), dtype=torch.uint8), 4, torch.ones((1, 16, 2)), scales)
    if kind == "outliers":
        return WithOutliers(codes[:, 1:], scales, torch.ones((rows, 1)), torch.tensor([0], dtype=torch.int32))
    return Quantized(codes, 4, scales, columns=torch.linspace(0.5, 2, columns))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("levels", "holds levels of a codebook, and compressed-tensors has even steps only"),
        ("vectors", "holds codes of several numbers"),
        ("outliers", "holds outliers in 16 bits"),
        ("columns", r"has a factor for each column.*foldable: true"),
    ],
)
def test_a_matrix_without_even_steps_is_refused_by_name_and_nothing_is_written(tmp_path: Path, kind: str, why: str) -> None:
    checkpoint = load(packed_by(lambda _: 4, tmp_path / "1"))
    network, path = checkpoint.torch_network, "model.layers.1.mlp.down_proj"
    linear: Any = network.get_submodule(path)
    place(network, path, PackedLinear(odd(kind, linear.rows, linear.columns_count).tensors(), linear.rows, linear.columns_count, None))
    save(checkpoint, tmp_path / "2")
    with pytest.raises(InputError, match=f"^{re.escape(path)} {why}") as refused:
        export(tmp_path / "2", tmp_path / "out", TO)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("family", "steps", "why"),
    [
        ("llama", [], "holds no packed weights; export it --to transformers"),
        ("gpt2", [("rtn", {})], "is a gpt2, whose layers are Conv1D"),
        pytest.param("bert", [("dynamic_int8", {})], "holds no packed weights; export it --to onnx", marks=pytest.mark.long),
        pytest.param("llama", [("codebook", {})], "holds levels of a codebook", marks=pytest.mark.long),
        pytest.param("llama", [("vector", {})], "holds codes of several numbers", marks=pytest.mark.long),
        pytest.param("llama", [("llm_int8", {})], "holds outliers in 16 bits", marks=pytest.mark.long),
        pytest.param("llama", [("awq", {})], r"has a factor for each column.*foldable: true", marks=pytest.mark.long),
        pytest.param("llama", [("svd", {"parameters": 0.5}), ("rtn", {})], "holds factors .*for which transformers has no place", marks=pytest.mark.long),
        pytest.param("llama", [("share_layers", {}), ("rtn", {})], "cannot say the shared layers", marks=pytest.mark.long),
    ],
    ids=str,
)
def test_what_it_cannot_say_is_refused_in_a_line(tmp_path: Path, family: str, steps: list[tuple[str, dict[str, Any]]], why: str) -> None:
    directory = model(tmp_path, family, *steps)
    with pytest.raises(InputError, match=why) as refused:
        export(directory, tmp_path / "out", TO)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_without_the_library_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = packed_by(lambda _: 4, tmp_path / "1")
    monkeypatch.setattr(compressed_tensors_folder, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^compressed-tensors is not installed; pip install 'recompress\[compressed-tensors\]'$"):
        export(directory, tmp_path / "out", TO)
    assert not (tmp_path / "out").exists()


def changing(change: Callable[[dict[str, Tensor]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's hand on the file, after it was written."""
    from safetensors.torch import save_file

    usual = FORMATS[TO]

    def write(directory: Path, info: Any, target: Path) -> None:
        usual.write(directory, info, target)
        tensors = {name: tensor.clone() for name, tensor in read_tensors(target / WEIGHTS_FILE).items()}
        change(tensors)
        save_file(tensors, target / WEIGHTS_FILE, metadata={"format": "pt"})

    monkeypatch.setitem(FORMATS, TO, replace(usual, write=write))  # type: ignore[index]


@pytest.mark.parametrize("symmetric", [True, False])
def test_one_code_changed_by_hand_is_caught_by_the_answers(tmp_path: Path, symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_code(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.down_proj.weight_packed"][3, 2] ^= 1 << 14

    changing(one_code, monkeypatch)
    with pytest.raises(IntegrityError, match="the exported model answers .* otherwise: a logit differs by"):
        export(packed_by(lambda _: 4, tmp_path / "1", symmetric=symmetric), tmp_path / "out", TO)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lost", ["weight_packed", "weight_scale"])
def test_a_tensor_that_is_missing_is_one_line(tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changing(lambda tensors: [tensors.pop(name) for name in [*tensors] if name.endswith(f"up_proj.{lost}")] and None, monkeypatch)
    with pytest.raises((InputError, IntegrityError)) as refused:
        export(packed_by(lambda _: 4, tmp_path / "1"), tmp_path / "out", TO)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_code_that_the_library_reads_otherwise_is_named_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = packed_schemes.coded

    def other(matrix: PackedLinear, scheme: packed_schemes.Scheme) -> dict[str, Tensor]:
        tensors = usual(matrix, scheme)
        tensors["weight_packed"][0, 0] ^= 1
        return tensors

    monkeypatch.setattr(packed_schemes, "coded", other)
    with pytest.raises(IntegrityError, match=r"reads other numbers in model\.layers\.0\.self_attn\.q_proj than were packed"):
        export(packed_by(lambda _: 4, tmp_path / "1"), tmp_path / "out", TO)


@pytest.mark.parametrize("symmetric", [True, False])
def test_neither_bars_nor_logs_are_seen(tmp_path: Path, symmetric: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """A command that answers with one object has nothing else on its output."""
    directory = packed_by(lambda _: 4, tmp_path / "1", symmetric=symmetric, group=None)
    capfd.readouterr()
    export(directory, tmp_path / "out", TO, examples=texts(2))
    assert capfd.readouterr() == ("", "")


def test_shapes_that_no_config_says_are_refused(tmp_path: Path) -> None:
    directory = packed_by(lambda _: 4, tmp_path / "1")
    with pytest.raises(InputError, match="cannot say the neurons of its layers"):
        FORMATS[TO].check(directory, replace(read_info(directory), neurons=(64, 32)))
