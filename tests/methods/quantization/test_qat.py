"""Rounding in training: its gradients against the formulas, what is packed against what was trained, kill and resume, on all six architectures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from recompress.errors import InputError
from recompress.methods.quantization import in_training, qat
from recompress.methods.quantization.grid import FewBits, grid_of, rounded
from recompress.methods.quantization.in_training import Rounding
from recompress.methods.quantization.qat import Qat
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import load, save
from recompress.models.packed import PackedEmbedding, packed_linear
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from recompress.training import run as training_run
from tests.six import checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"precision": "fp32", "batch_size": 8, "learning_rate": 1e-3}


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_gradient_goes_straight_through(symmetric: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, slope = torch.randn(3, 8, generator=draw, requires_grad=True), torch.randn(3, 8, generator=draw)
    config = FewBits(bits=3, group_size=8, symmetric=symmetric)
    rounded_weight = Rounding(weight.detach(), config, learned=False, turned=False)(weight)
    assert torch.equal(rounded_weight.detach(), packed_linear(rounded(weight.detach(), config), torch.nn.Linear(8, 3)).weight)
    (rounded_weight * slope).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, slope)


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_learned_scales_have_the_gradient_of_the_paper(bits: Any, size: int | None) -> None:
    """LSQ's eq. 3 and 5, weight by weight; some of them lie beyond the range. N is the number of weights that share a scale."""
    draw = torch.Generator().manual_seed(bits)
    weight, slope = torch.randn(2, 24, generator=draw, requires_grad=True), torch.randn(2, 24, generator=draw)
    rounding = Rounding(weight.detach(), FewBits(bits=bits, group_size=size, symmetric=True), learned=True, turned=False)
    low, high, members = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, size or 24
    assert rounding.scales is not None
    torch.testing.assert_close(rounding.scales.detach(), 2 * weight.detach().view(2, -1, members).abs().mean(2) / high**0.5)
    scales = rounding.scales.detach().half().float()
    with torch.no_grad():
        weight[:, ::5] *= 4
    (rounding(weight) * slope).sum().backward()
    outside = 0
    for o, g in itertools.product(range(2), range(24 // members)):
        along = 0.0
        for i in range(g * members, (g + 1) * members):
            v = float(weight.detach()[o, i] / scales[o, g])
            inside = low <= v <= high
            along += float(slope[o, i]) * ((round(v) - v) if inside else (low if v < low else high))
            assert float(weight.grad[o, i]) == (float(slope[o, i]) if inside else 0.0)  # type: ignore[index]
            outside += not inside
        assert float(rounding.scales.grad[o, g]) == pytest.approx(along / (members * high) ** 0.5, rel=1e-4, abs=1e-5)  # type: ignore[index]
    assert outside > 0


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_packed_is_what_the_network_computed_with(turned: bool, learned: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 16, generator=draw)
    weight[torch.rand(6, 16, generator=draw) < 0.4] = 0
    rounding = Rounding(weight, FewBits(bits=3, group_size=8, symmetric=learned), learned=learned, turned=turned)
    original = torch.randn(6, 16, generator=draw)  # moved on in training
    given = original.T.contiguous() if turned else original
    values = rounding(given).detach()
    values = values.T if turned else values
    assert torch.equal(packed_linear(rounding.quantized(given), torch.nn.Linear(16, 6)).weight, values)
    assert (values[weight == 0] == 0).all()
    assert (values[weight != 0] != 0).any()


def test_16_bits_would_change_next_to_nothing() -> None:
    """The grid at many bits is the identity, so that training with it is training."""
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    errors = [float((Rounding(weight, FewBits(bits=bits), learned=False, turned=False)(weight) - weight).abs().max()) for bits in (2, 3, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < float(grid_of(weight, 8, None, symmetric=False).scales.max())


def test_training_brings_few_bits_nearer_to_their_aim_than_rounding() -> None:
    """A layer that is to answer like another one: trained with the rounding in place, it ends nearer than the other one rounded."""
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=draw)
    rows, aim = torch.randn(400, 16, generator=draw) @ mix, torch.randn(8, 16, generator=draw)
    losses = {}
    for learned in (False, True):
        config = FewBits(bits=2, symmetric=learned)
        linear = torch.nn.Linear(16, 8, bias=False)
        linear.weight.data.copy_(aim)
        register_parametrization(linear, "weight", Rounding(aim, config, learned=learned, turned=False))
        optimizer = torch.optim.Adam(linear.parameters(), lr=0.003)
        best = float("inf")
        for _ in range(400):
            optimizer.zero_grad()
            loss = (linear(rows) - rows @ aim.T).square().mean()
            best = min(best, loss.item())
            loss.backward()
            optimizer.step()
        plain = float((rows @ (packed_linear(rounded(aim, FewBits(bits=2)), linear).weight - aim).T).square().mean())
        losses[learned] = best / plain
    assert losses[False] < 0.85
    assert losses[True] < 0.7


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("qat", Qat(**(QUICK | dials)), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


@pytest.mark.parametrize("family", each())
def test_on_every_architecture(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed model answers as the trained one did, embeddings and the output layer that is tied to them included."""
    features = features_of(checkpoint_of(family), family)
    trained: list[Any] = []
    real = qat.pack

    def look(network: Any, config: Qat, *, tied: bool) -> None:
        assert all(is_parametrized(linear) for _, linear in encoder_linears(network))
        assert tied == (family in ("gpt2", "llama"))
        trained.extend(
            runtime_of(load(tmp_path / "source").__class__(network, load(tmp_path / "source").tokenizer, load(tmp_path / "source").info)).logits(features)
        )
        real(network, config, tied=tied)

    monkeypatch.setattr(qat, "pack", look)
    report = step(family, tmp_path, "made", embeddings=True, group_size=16)
    checkpoint = load(tmp_path / "made")
    assert isinstance(checkpoint.torch_network.get_input_embeddings(), PackedEmbedding)
    for was, now in zip(trained, runtime_of(checkpoint).logits(features), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-4, atol=1e-5)
    assert report.parameters == report.parameters_before
    assert {claim["what"]: claim["measured"] for claim in report.claims}["weights moved"] == 1


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_learned_scales_are_learned_and_the_same_seed_gives_the_same_bytes(family: str, tmp_path: Path) -> None:
    for name in ("made", "again"):
        step(family, tmp_path, name, scales="learned", symmetric=True, bits=3, embeddings=True)
    assert (tmp_path / "made" / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()
    network = load(tmp_path / "made").torch_network
    for path, linear in encoder_linears(checkpoint_of(family).torch_network):
        first = in_training.first_scales(weight_of(linear), FewBits(bits=3)).half()
        assert not network.get_submodule(path).scales.equal(first)


def test_killed_and_called_again_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recompress.training import callbacks

    step("gpt2", tmp_path, "whole", epochs=2, embeddings=True)
    real, ends = callbacks.SaveInTime.on_save, []

    def killed(self: Any, *args: Any, **rest: Any) -> None:
        real(self, *args, **rest)
        ends.append(1)
        if len(ends) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.SaveInTime, "on_save", killed)
        with pytest.raises(KeyboardInterrupt):
            step("gpt2", tmp_path, "resumed", epochs=2, embeddings=True)
    assert not (tmp_path / "resumed").exists()
    started: list[Any] = []
    state_of = training_run.state_of
    monkeypatch.setattr(training_run, "state_of", lambda place: started.append(state_of(place)["global_step"]) or state_of(place))
    step("gpt2", tmp_path, "resumed", epochs=2, embeddings=True)
    assert started[0] > 0
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["distilbert", "gpt2"])
def test_what_was_pruned_stays_zero(family: str, tmp_path: Path) -> None:
    save(checkpoint_of(family), tmp_path / "dense")
    run_step("wanda", get_method("wanda").config(sparsity=0.5), tmp_path / "dense", tmp_path / "source", inputs_of(family, tmp_path / "w"))
    step(family, tmp_path, "made")
    network = load(tmp_path / "made").torch_network
    for path, linear in encoder_linears(load(tmp_path / "source").torch_network):
        assert (network.get_submodule(path).weight[weight_of(linear) == 0] == 0).all()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set symmetric: true"):
        step("bert", tmp_path, "x", scales="learned")
    with pytest.raises(InputError, match="group_size 24 does not divide"):
        step("bert", tmp_path, "x", group_size=24)
    with pytest.raises(ValidationError):
        Qat(bits=16)
    assert not (tmp_path / "x").exists()
