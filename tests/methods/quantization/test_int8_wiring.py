"""The int8 graphs against what flows and what is stored, by hand: a step for each output, ranges from the text alone, and scales that are really folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from recompress.methods.quantization.int8_graph import answers_claim, cut_off, products_of
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.architecture import encoder_linears, layers_of
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.models.surgery import weight_of
from tests.methods.quantization.by_hand import inputs_of_linears, rows_of, uneven
from tests.six import features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
TOP = 64
"""The levels of 7 bits, which processors without VNNI use."""


@pytest.fixture(autouse=True)
def _known() -> None:
    get_method("static_int8")


def graph_of(name: str, family: str, place: Path, **dials: Any) -> tuple[Checkpoint, Any]:
    save(uneven(family), place / "source")
    run_step(name, get_method(name).config(**dials), place / "source", place / "made", inputs_of(family, place / "work", 24))
    return load(place / "source"), read_graph(place / "made" / "model.onnx")


def nearest(values: np.ndarray, candidates: list[np.ndarray]) -> np.ndarray:
    """The candidate with the smallest distance."""
    return min((other for other in candidates if other.shape == values.shape), key=lambda other: float(np.abs(other - values).sum()))


@pytest.mark.parametrize(("name", "family"), [("dynamic_int8", "bert"), ("static_int8", "gpt2")])
def test_each_output_has_steps_of_its_own(name: str, family: str, tmp_path: Path) -> None:
    """No weight further from what it was than half of its own row's step; with one scale for the matrix most rows would be."""
    dense, model = graph_of(name, family, tmp_path)
    matrices = [product.values for product in products_of(model)]
    wide = 0
    for _, linear in encoder_linears(dense.torch_network):
        weight = weight_of(linear).numpy()
        steps = np.abs(weight).max(1, keepdims=True) / (TOP - 1)
        gaps = np.abs(nearest(weight, matrices) - weight)
        assert (gaps <= 0.51 * steps).all()
        wide += bool(steps.max() > 10 * steps.min())
    assert wide >= 2


@pytest.mark.parametrize(("family", "count"), [("bert", 24), ("gpt2", 24), ("bert", 20)])
def test_ranges_are_those_of_the_text_without_padding(family: str, count: int, tmp_path: Path) -> None:
    """For every product of every layer: the smallest and the largest number that flows into it, over as many examples as were asked for, one after another."""
    dense, model = graph_of("static_int8", family, tmp_path, calibration_examples=count)
    rows_seen = rows_of(dense, inputs_of(family, tmp_path, 24), count)
    seen = inputs_of_linears(dense.torch_network.eval(), dict(encoder_linears(dense.torch_network)), rows_seen)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scales = np.array([float(stored[node.input[1]]) for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[1] in stored])
    for name, rows in seen.items():
        width = float(rows.max().clamp_min(0) - rows.min().clamp_max(0))
        missed = min(float(np.abs(scales - width / levels).min()) / (width / levels) for levels in (255, 127))
        assert missed < 1e-3, name


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_scales_are_folded_into_weights_norms_and_biases(family: str, tmp_path: Path) -> None:
    """s by hand from what flows in; then every norm, bias and matrix of the graph against the old one times or over s."""
    alpha = 0.7
    dense, model = graph_of("static_int8", family, tmp_path, smooth=alpha)
    network: Any = dense.torch_network.eval()
    linears = dict(encoder_linears(network))
    names = {id(linear): name for name, linear in linears.items()}
    seen = {name: rows.abs().amax(0) for name, rows in inputs_of_linears(network, linears, rows_of(dense, inputs_of(family, tmp_path, 24))).items()}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    matrices = [product.values for product in products_of(model)]

    def scales(after: list[Any]) -> torch.Tensor:
        heavy = torch.stack([weight_of(linear).abs().amax(0) for linear in after]).amax(0)
        return seen[names[id(after[0])]] ** alpha / heavy ** (1 - alpha)

    def check(name: str, was: torch.Tensor, scale: torch.Tensor) -> None:
        np.testing.assert_allclose(stored[f"network.{name}"], (was / scale).numpy(), rtol=1e-3, atol=1e-6)

    for layer in layers_of(network):
        path = names[id(layer.query)].rpartition(".attn")[0]
        out, folded = scales([layer.out]), torch.ones(len(weight_of(layer.value)))
        folded[-len(out) :] = out
        asked = torch.ones(weight_of(layer.query).shape[1])
        if family == "gpt2":
            asked, fed = scales([layer.query]), scales([layer.neurons_in[0]])
            for norm, scale in (("ln_1", asked), ("ln_2", fed)):
                for part in ("weight", "bias"):
                    check(f"{path}.{norm}.{part}", getattr(layer.module.get_submodule(norm), part).data, scale)
        check(f"{names[id(layer.value)]}.bias", layer.value.bias.data, folded)
        assert float(out.max() / out.min()) > 2
        for linear, expected in ((layer.value, weight_of(layer.value) / folded[:, None] * asked), (layer.out, weight_of(layer.out) * out)):
            target = expected.numpy()
            assert np.linalg.norm(nearest(target, matrices) - target) < 0.03 * np.linalg.norm(target)
            plain = weight_of(linear).numpy()
            assert np.linalg.norm(nearest(plain, matrices) - plain) > 0.1 * np.linalg.norm(plain)


def test_what_lies_beyond_the_ranges_is_counted(tmp_path: Path) -> None:
    """None of the text that they were taken from, and much of a text whose inputs are larger."""
    dense, model = graph_of("static_int8", "gpt2", tmp_path)
    features = features_of(dense, "gpt2", 6)
    usual = cut_off(read_graph(tmp_path / "made" / "model.onnx"), features)
    for tensor in model.graph.initializer:
        if "ln_1.weight" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(4 * onnx.numpy_helper.to_array(tensor), tensor.name))
    assert usual < 0.01 < cut_off(model, features)


def test_a_head_that_says_nothing_yet_is_no_obstacle_and_one_that_says_something_must_still_be_met(tmp_path: Path) -> None:
    """Rounding is held against a tenth of a logit where the answers lie closer together than that: an untrained head's lie closer than rounding moves them."""
    dense = uneven("bert")
    head = dense.torch_network.classifier
    with torch.no_grad():
        head.weight *= 1e-4
    save(dense, tmp_path / "source")
    inputs = inputs_of("bert", tmp_path / "work", 24)
    run_step("dynamic_int8", get_method("dynamic_int8").config(), tmp_path / "source", tmp_path / "made", inputs)
    before, after = load(tmp_path / "source"), load(tmp_path / "made")
    claim = answers_claim(before, after, inputs)
    assert claim.kept
    assert claim.limit == "at most 0.5"
    graph = read_graph(tmp_path / "made" / "model.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("classifier.bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.2), tensor.name))
    write_graph(graph, tmp_path / "made" / "model.onnx")
    assert not answers_claim(before, load(tmp_path / "made"), inputs).kept, "two tenths of a logit are no rounding"
