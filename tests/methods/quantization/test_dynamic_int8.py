"""Eight bits where eight bits were asked for, counted in the graph and on the disk, close to the formula."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from recompress.errors import EffectMissing, InputError, IntegrityError
from recompress.methods.quantization.dynamic_int8 import DynamicInt8, prove
from recompress.methods.quantization.int8 import check
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import load, save
from recompress.models.files import distinct_tensors
from recompress.models.onnx_graph import numbers_in, read_graph, weights_in
from recompress.runtimes import export, open_runtime
from recompress.runtimes.processor import int8_overflows
from tests import six
from tests.families import checkpoint_of, inputs_of, saved


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("dynamic_int8")


def quantize(place: Path, family: str = "bert", **dials: Any) -> StepReport:
    source = place / "source"
    if not source.exists():
        saved(family, source)
    return run_step("dynamic_int8", DynamicInt8(**dials), source, place / "target", inputs_of(place / "work"))


def dequantized(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Stored 8-bit matrices times their scales, by name."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {}
    for name, values in stored.items():
        if name.endswith("_quantized") and values.ndim == 2:
            base = name.removesuffix("_quantized")
            weights[base] = (values.astype(np.float32) - stored[f"{base}_zero_point"].astype(np.float32)) * stored[f"{base}_scale"]
    return weights


@pytest.mark.parametrize("embeddings", [True, False])
def test_what_is_in_eight_bits_is_what_was_asked(embeddings: bool, tmp_path: Path) -> None:
    report = quantize(tmp_path, embeddings=embeddings)
    weights = weights_in(read_graph(tmp_path / "target" / "model.onnx"))
    assert weights.products_int8 == weights.products == sum(linear.numel() for linear in matrices(tmp_path / "source"))
    assert weights.lookups_int8 == (weights.lookups if embeddings else 0)
    assert report.parameters == report.parameters_before
    settings = {"int8": True, "pad_id": 0, "per_channel": True, "embeddings": embeddings, "reduce_range": int8_overflows()}
    assert load(tmp_path / "target").info.onnx == settings


def matrices(source: Path) -> list[torch.Tensor]:
    return [m.weight for m in load(source).torch_network.modules() if isinstance(m, torch.nn.Linear)]


@pytest.mark.parametrize(("reduce_range", "levels"), [(False, 127), (True, 63)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_stored_weights_follow_the_formula(per_channel: bool, reduce_range: bool, levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: False)  # what is stored is the same on any processor
    quantize(tmp_path, per_channel=per_channel, reduce_range=reduce_range)
    model = read_graph(tmp_path / "target" / "model.onnx")
    candidates = [matrix for name, matrix in dequantized(model).items() if "embedding" not in name and "embed" not in name]
    originals = [weight.detach().numpy().T for weight in matrices(tmp_path / "source")]
    assert len(candidates) == len(originals)
    for weight in originals:
        scale = np.abs(weight).max(axis=0 if per_channel else None, keepdims=per_channel) / levels
        expected = np.clip(np.round(weight / scale), -levels - 1, levels) * scale
        nearest = min(float(np.abs(matrix - expected).max()) for matrix in candidates if matrix.shape == weight.shape)
        assert nearest <= 1.01 * float(np.max(scale))


@pytest.mark.parametrize("needed", [False, True])
def test_auto_takes_7_bits_where_the_processor_needs_them_and_says_so(needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: needed)
    report = quantize(tmp_path)
    assert load(tmp_path / "target").info.onnx["reduce_range"] is needed
    claims = {claim["what"]: claim["measured"] for claim in report.claims}
    assert claims["bits that matrix weights use"] == (7 if needed else 8)
    assert claims["7 bits, where asked or needed"] == needed


def test_7_bits_that_are_8_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: False)  # or 8 bits are refused before they are made
    quantize(tmp_path, reduce_range=False)
    after = load(tmp_path / "target")
    before = load(tmp_path / "source")
    claims = {claim.what: claim for claim in prove(before, after, DynamicInt8(reduce_range=True), inputs_of(tmp_path))}
    assert not claims["7 bits, where asked or needed"].kept
    after.info.onnx["reduce_range"] = True
    claims = {claim.what: claim for claim in prove(before, after, DynamicInt8(reduce_range=True), inputs_of(tmp_path))}
    assert not claims["bits that matrix weights use"].kept


@pytest.mark.parametrize("family", [pytest.param("gpt2", marks=pytest.mark.long), "llama"])
def test_on_decoders_the_table_is_stored_once(family: str, tmp_path: Path) -> None:
    """Tied embeddings: 8 bits, once; windows of text are answered nearly as in floats, and as in floats where nothing is rounded."""
    save(six.checkpoint_of(family), tmp_path / "source")
    inputs = six.inputs_of(family, tmp_path / "work", 24)
    run_step("dynamic_int8", DynamicInt8(), tmp_path / "source", tmp_path / "target", inputs)
    run_step("static_int8", get_method("static_int8").config(), tmp_path / "source", tmp_path / "static", inputs)
    run_step("onnx_fp32", get_method("onnx_fp32").config(), tmp_path / "source", tmp_path / "floats", inputs)
    weights = weights_in(read_graph(tmp_path / "target" / "model.onnx"))
    assert weights == weights_in(read_graph(tmp_path / "static" / "model.onnx"))
    dense = six.checkpoint_of(family).torch_network
    assert weights.products_int8 == sum(linear.weight.numel() for _, linear in encoder_linears(dense))
    assert weights.lookups_int8 == weights.lookups == sum(m.weight.numel() for m in dense.modules() if isinstance(m, torch.nn.Embedding))
    features = six.features_of(six.checkpoint_of(family), family)
    expected, exact, *rounded = (open_runtime(tmp_path / name).logits(features) for name in ("source", "floats", "target", "static"))
    for was, same, *near in zip(expected, exact, *rounded, strict=True):
        np.testing.assert_allclose(same, was, rtol=1e-3, atol=1e-4)
        assert all(0 < np.abs(now - was).mean() < 0.1 * np.abs(was - was.mean()).mean() for now in near)
    assert dense.config.use_cache is load(tmp_path / "source").torch_network.config.use_cache


def test_an_effect_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """A full-precision graph that calls itself quantized."""
    source = saved("bert", tmp_path / "source")
    run_step("onnx_fp32", get_method("onnx_fp32").config(), source, tmp_path / "fp32", inputs_of(tmp_path / "work"))
    claims = {claim.what: claim for claim in prove(load(source), load(tmp_path / "fp32"), DynamicInt8(), inputs_of(tmp_path))}
    assert not claims["share of matrix weights in 8 bits"].kept
    assert not claims["share of embedding weights in 8 bits"].kept


def test_a_quantizer_that_does_nothing_fails_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", lambda model, path, **_: onnx.save(model, path))
    with pytest.raises(EffectMissing, match="share of matrix weights in 8 bits: asked for 1, measured 0"):
        quantize(tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_graph_that_answers_differently_is_refused_and_exporting_is_quiet(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    network = checkpoint_of("distilbert").torch_network
    other = checkpoint_of("distilbert", seed=1).torch_network
    model, names = export.export_graph(network), ("input_ids", "attention_mask")
    assert capfd.readouterr() == ("", "")
    export._check_same(model, network, names)
    with pytest.raises(IntegrityError, match="does not answer like the network on 1 × 3 tokens"):
        export._check_same(model, other, names)
    monkeypatch.setattr(export, "recall", lambda *_: None)
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: SimpleNamespace(model_proto=model))  # an exporter that gives the graph of another network
    with pytest.raises(IntegrityError, match="does not answer like the network"):
        export.export_graph(other)
    assert numbers_in(model) == sum(tensor.numel() for tensor in distinct_tensors(network).values())
    assert network.config._attn_implementation == "sdpa"
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_quantizing_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_8_bits_whose_sums_overflow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: True)
    with pytest.raises(InputError, match="overflow on this processor"):
        check(DynamicInt8(reduce_range=False))
    check(DynamicInt8(reduce_range=True))
