"""Ranges from calibration text, scales folded without changing a single answer, and what the graph must show for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.methods.calibration import watch
from recompress.methods.quantization import smooth as smoothing
from recompress.methods.quantization.static_int8 import StaticInt8, prove, ranged_products
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import ARCHITECTURES, layers_of
from recompress.models.checkpoint import load, save
from recompress.models.onnx_graph import read_graph, weights_in
from recompress.runtimes import open_runtime, runtime_of
from recompress.training.run import weights_sha256
from tests.six import DECODERS, SIX, checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("static_int8")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_scales_are_those_of_the_paper(alpha: float) -> None:
    draw = torch.Generator().manual_seed(0)
    largest, weights = torch.rand(6, generator=draw) * 9, [torch.randn(3, 6, generator=draw), torch.randn(5, 6, generator=draw)]
    largest[4] = 0
    scales = smoothing.smoothing(largest, weights, (1, 1, 6), alpha)
    for j in range(6):
        heavy = max(float(weight[:, j].abs().max()) for weight in weights)
        assert float(scales[j]) == pytest.approx(float(largest[j]) ** alpha / heavy ** (1 - alpha) if j != 4 else 1.0, rel=1e-5)
    shared = smoothing.smoothing(largest, weights, (1, 2, 3), alpha)
    assert torch.equal(shared[:3], shared[3:])


@pytest.mark.parametrize("family", SIX)
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_folding_changes_weights_and_no_answer(family: str, alpha: float) -> None:
    plain, smoothed = checkpoint_of(family), checkpoint_of(family)
    features = features_of(plain, family, 12)
    count = smoothing.smooth(smoothed.torch_network, features, alpha)
    assert count == 2 * {"gpt2": 3, "llama": 4}.get(family, 1)
    assert weights_sha256(smoothed.torch_network) != weights_sha256(plain.torch_network)
    for was, now in zip(runtime_of(plain).logits(features), runtime_of(smoothed).logits(features), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("family", SIX)
def test_with_alpha_1_all_inputs_reach_as_far(family: str) -> None:
    """Where scales are folded, the largest input of every channel is 1 afterwards: nothing sticks out. Repeats of grouped queries share theirs."""
    checkpoint = checkpoint_of(family)
    features = features_of(checkpoint, family, 12)
    smoothing.smooth(checkpoint.torch_network, features, 1.0)
    seen: dict[int, torch.Tensor] = {}

    def see(place: int) -> Any:
        def watcher(given: torch.Tensor, _: torch.Tensor, text: torch.Tensor) -> None:
            seen[place] = torch.maximum(seen.get(place, torch.zeros(())), given[text].abs().amax(0))

        return watcher

    folds = smoothing.folds_of(checkpoint.torch_network)
    watch(checkpoint.torch_network, features, {fold.after[0]: see(i) for i, fold in enumerate(folds)})
    for i, fold in enumerate(folds):
        torch.testing.assert_close(seen[i].view(fold.shape).amax(1), torch.ones(fold.shape[0], fold.shape[2]), rtol=1e-3, atol=1e-3)


def test_smoothing_saves_what_outliers_cost() -> None:
    """One scale for all inputs, one for each output, as the graph has them."""
    draw = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(200, 32, generator=draw), torch.randn(16, 32, generator=draw)
    rows[:, 5] *= 80
    scales = smoothing.smoothing(rows.abs().amax(0), [weight], (1, 1, 32), 0.5)

    def rounded(values: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return (values / step).round() * step

    errors = []
    for x, w in ((rows, weight), (rows / scales, weight * scales)):
        outputs = rounded(x, x.abs().max() / 127) @ rounded(w, w.abs().amax(1, keepdim=True) / 127).T
        errors.append(float((outputs - rows @ weight.T).square().mean()))
    assert errors[1] < 0.2 * errors[0]


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("static_int8", StaticInt8(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


def test_ranges_are_those_of_the_calibration_text(tmp_path: Path) -> None:
    """The stored range of the first product's input is that of what flows there; the same text gives the same bytes."""
    import onnx

    step("bert", tmp_path, "made")
    model = read_graph(tmp_path / "made" / "model.onnx")
    dense = load(tmp_path / "source")
    low, high = torch.tensor(0.0), torch.tensor(0.0)

    def see(given: torch.Tensor, _: torch.Tensor, text: torch.Tensor) -> None:
        low.copy_(torch.minimum(low, given[text].min()))
        high.copy_(torch.maximum(high, given[text].max()))

    inputs = inputs_of("bert", tmp_path, 24)
    features = inputs.benchmark.encode(dense.tokenizer, inputs.train, dense.info.labels, dense.info.max_length)
    watch(dense.torch_network, features, {layers_of(dense.torch_network)[0].out: see})
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = [float(stored[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert any(abs(scale - float(high - low) / 255) < 1e-3 * scale for scale in scales)
    step("bert", tmp_path, "again")
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (tmp_path / "made" / "model.onnx").read_bytes()
    step("bert", tmp_path, "plain", embeddings=False, per_channel=False)
    plain = weights_in(read_graph(tmp_path / "plain" / "model.onnx"))
    assert (plain.lookups_int8, plain.products_int8) == (0, plain.products)


def test_a_graph_without_ranges_is_noticed(tmp_path: Path) -> None:
    """A dynamic graph that calls itself static."""
    save(checkpoint_of("bert"), tmp_path / "source")
    run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "source", tmp_path / "made", inputs_of("bert", tmp_path / "w"))
    checkpoint = load(tmp_path / "made")
    assert isinstance(checkpoint.network, Path)
    assert ranged_products(read_graph(checkpoint.network))[1] == 0
    claims = {claim.what: claim for claim in prove(load(tmp_path / "source"), checkpoint, StaticInt8(smooth=0.5), inputs_of("bert", tmp_path))}
    assert not claims["products with calibrated inputs"].kept
    assert not claims["weights with scales folded in, farthest from any in the graph"].kept


@pytest.mark.slow
def test_smoothed_on_a_decoder(tmp_path: Path) -> None:
    report = step(DECODERS[0], tmp_path, "made", smooth=0.5)
    measured = {claim["what"]: claim["measured"] for claim in report.claims}
    assert measured["weights with scales folded in, farthest from any in the graph"] < 0.02
    assert measured["products with calibrated inputs"] == 8
    features = features_of(checkpoint_of(DECODERS[0]), DECODERS[0])
    for was, now in zip(open_runtime(tmp_path / "source").logits(features), open_runtime(tmp_path / "made").logits(features), strict=True):
        assert 0 < np.abs(now - was).mean() < 0.1 * np.abs(was - was.mean()).mean()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        StaticInt8(smooth=1.5)
    checkpoint = checkpoint_of("llama")
    monkeypatch.setattr(smoothing, "is_factored", lambda network: True)
    with pytest.raises(InputError, match="leave smooth out"):
        smoothing.smooth(checkpoint.torch_network, features_of(checkpoint, "llama"), 0.5)
    monkeypatch.undo()
    monkeypatch.setitem(ARCHITECTURES, "llama", replace(ARCHITECTURES["llama"], norms=("post_attention_layernorm", "input_layernorm")))  # type: ignore[type-var]
    with pytest.raises(IntegrityError, match="changed the answers"):
        smoothing.smooth(checkpoint.torch_network, features_of(checkpoint, "llama"), 0.9)
    monkeypatch.undo()
    monkeypatch.setattr("recompress.methods.quantization.int8.int8_overflows", lambda: True)
    with pytest.raises(InputError, match="lacks VNNI"):
        step("bert", tmp_path, "x", reduce_range=False)
    assert not (tmp_path / "x").exists()
