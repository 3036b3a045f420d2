"""Rounding, GPTQ and AWQ against loops and explicit inverses, on all six architectures, with their bits counted on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from recompress.errors import InputError
from recompress.layerwise.second_order import inverse_root, permute
from recompress.methods.chain import check_chain
from recompress.methods.quantization import awq, column_by_column, grid
from recompress.methods.quantization.gptq import Gptq
from recompress.methods.quantization.grid import FewBits, Grid
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import PackedLinear, Quantized, packed_linear
from recompress.models.surgery import weight_of
from recompress.runtimes import open_runtime
from tests.layerwise.second_order_by_hand import by_hand, damped, inputs_and_weight, loss
from tests.methods.quantization.by_hand import tables
from tests.six import DECODERS, checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
grid_of = jaxtyped(typechecker=beartype)(grid.grid_of)
codes_on = jaxtyped(typechecker=beartype)(grid.codes_on)
values_of = jaxtyped(typechecker=beartype)(grid.values_of)
METHODS = ("rtn", "gptq", "awq")


def values(quantized: Quantized) -> Tensor:
    columns = quantized.codes.shape[1]
    return packed_linear(quantized, torch.nn.Linear(columns, len(quantized.codes), bias=False)).weight


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from([2, 3, 4, 8]), symmetric=st.booleans(), shift=st.sampled_from([0.0, 3.0, -50.0]), seed=st.integers(0, 999))
def test_each_weight_is_on_its_nearest_step(bits: int, symmetric: bool, shift: float, seed: int) -> None:
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    steps = grid_of(weight, bits, 4, symmetric=symmetric)
    assert torch.equal(steps.scales.half().double(), steps.scales)
    rounded = values_of(codes_on(weight, steps, bits), steps)
    for o in range(3):
        for i in range(8):
            scale, zero = float(steps.scales[o, i // 4]), float(steps.zeros[o, i // 4])
            every = [scale * (code - zero) for code in range(1 << bits)]
            nearest = min(every, key=lambda value: abs(value - float(weight[o, i])))
            assert (
                float(rounded[o, i]) == pytest.approx(nearest, abs=1e-9)
                or abs(abs(float(rounded[o, i]) - float(weight[o, i])) - abs(nearest - float(weight[o, i]))) < 1e-9
            )
            assert abs(float(rounded[o, i]) - float(weight[o, i])) <= 0.5 * scale + 1e-9
            assert 0.0 in every


def test_16_bits_change_next_to_nothing_and_more_bits_less() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for bits in (2, 3, 4, 8, 16):
        steps = grid_of(weight, bits, None, symmetric=False)
        top = (1 << bits) - 1
        codes = ((weight / steps.scales).round() + steps.zeros).clamp(0, top)
        errors.append(float((values_of(codes.long(), steps) - weight).abs().max()))
        if bits <= 8:
            assert torch.equal(codes.to(torch.uint8), codes_on(weight, steps, bits))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


def test_zeros_and_tiny_weights_survive() -> None:
    weight = torch.tensor([[0.0] * 8, [1e-9, -1e-9] * 4, [60000.0] * 8], dtype=torch.float64)
    for symmetric in (False, True):
        steps = grid_of(weight, 4, None, symmetric=symmetric)
        rounded = values_of(codes_on(weight, steps, 4), steps)
        assert (rounded[0] == 0).all()
        assert rounded.isfinite().all()
        assert (rounded[2] - 60000).abs().max() <= steps.scales[2, 0]


def round_by_hand(config: FewBits, weight: Tensor, order: list[int] | None = None) -> Any:
    """The nearest step of a column; steps from the weight as it came, or, in groups without an order, as the columns before left it."""
    columns = weight.shape[1]
    size = config.group_size or columns
    order = order or list(range(columns))
    steps: dict[int, Grid] = {
        g: grid.grid_of(weight[:, g * size : (g + 1) * size], config.bits, None, symmetric=config.symmetric) for g in range(columns // size)
    }

    def settle(j: int, now: Tensor, _: Tensor) -> Tensor:
        group = order[j] // size
        if order == list(range(columns)) and config.group_size and j % size == 0:
            steps[group] = grid.grid_of(now[:, j : j + size], config.bits, None, symmetric=config.symmetric)
        scale, zero = steps[group].scales[:, 0], steps[group].zeros[:, 0]
        return scale * (((now[:, j] / scale).round() + zero).clamp(0, (1 << config.bits) - 1) - zero)

    return settle


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("bits", "group_size", "symmetric"), [(4, None, False), (3, 8, False), (2, 8, True), (8, None, True)])
def test_gptq_is_brain_surgery_with_explicit_inverses(bits: Any, group_size: int | None, symmetric: bool, act_order: bool, seed: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("recompress.methods.quantization.column_by_column.block_of", lambda multiple: max(8, multiple))
    config = Gptq(bits=bits, group_size=group_size, symmetric=symmetric)
    hessian, weight = inputs_and_weight(4, 24, seed)
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else torch.arange(24)
    ordered = hessian[order][:, order]
    expected = torch.empty_like(weight)
    expected[:, order] = by_hand(weight[:, order], damped(ordered, 0.05), ordered_settle(config, weight, order.tolist()))
    given_hessian = hessian.clone()
    permute(given_hessian, order)
    quantized = column_by_column.quantize_matrix(weight.clone(), inverse_root(given_hessian, 0.05), config, order if act_order else None)
    torch.testing.assert_close(values(quantized).double(), expected, rtol=1e-4, atol=1e-4)


def ordered_settle(config: FewBits, weight: Tensor, order: list[int]) -> Any:
    return round_by_hand(config, weight, order)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_gptq_and_awq_lose_less_than_rounding(bits: Any, seed: int) -> None:
    config = Gptq(bits=bits)
    hessian, weight = inputs_and_weight(16, 32, seed)
    by_rounding = loss(hessian, weight, values(grid.rounded(weight, config)).double())
    order = hessian.diagonal().argsort(descending=True)
    given_hessian = hessian.clone()
    permute(given_hessian, order)
    by_gptq = values(column_by_column.quantize_matrix(weight.clone(), inverse_root(given_hessian, 0.01), config, order)).double()
    by_awq = values(awq.quantize_matrix(weight.float(), hessian.diagonal().sqrt(), hessian.float(), config)).double()
    assert loss(hessian, weight, by_gptq) < by_rounding
    assert loss(hessian, weight, by_awq) <= by_rounding * (1 + 1e-6)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group_size", [None, 8])
def test_gptq_leaves_zeros_zero_and_makes_up_for_their_rounding(group_size: int | None, act_order: bool) -> None:
    config = Gptq(bits=3, group_size=group_size)
    hessian, weight = inputs_and_weight(16, 32, 0)
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else None
    given_hessian = hessian.clone()
    if order is not None:
        permute(given_hessian, order)
    rounded = values(column_by_column.quantize_matrix(weight.clone(), inverse_root(given_hessian, 0.01), config, order)).double()
    assert (rounded[weight == 0] == 0).all()
    assert (rounded[weight != 0] != 0).any()
    assert loss(hessian, weight, rounded) < loss(hessian, weight, values(grid.rounded(weight, config)).double())


def test_awq_finds_the_best_exponent_of_its_list() -> None:
    config = FewBits(bits=3)
    hessian, weight = inputs_and_weight(8, 16, 5)
    absolute = torch.rand(16, generator=torch.Generator().manual_seed(0)).double() ** 3
    quantized = awq.quantize_matrix(weight.float(), absolute, hessian.float(), config)
    errors = []
    for step in range(21):
        s = (absolute.clamp_min(1e-4 * float(absolute.max()))) ** (step / 20)
        columns = (1 / (s / (s.max() * s.min()).sqrt())).half().double()
        errors.append(loss(hessian, weight, values(grid.rounded(weight / columns, config)).double() * columns))
    assert loss(hessian, weight, values(quantized).double()) == pytest.approx(min(errors), rel=1e-3)
    assert torch.equal(awq.columns_for(absolute, 0.0), torch.ones(16))


def step(name: str, family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    target = place / "-".join([name, *map(str, dials.values())])
    return run_step(name, get_method(name).config(**dials), place / "source", target, inputs_of(family, place / f"work-{target.name}", 24))


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("name", METHODS)
def test_on_every_architecture(name: str, family: str, tmp_path: Path) -> None:
    """Every linear layer of the layers is packed; its codes take their bits on disk; the new runtime answers."""
    report = step(name, family, tmp_path, bits=4, group_size=16)
    assert report.claims[0]["measured"] == sum(1 for _ in encoder_linears(checkpoint_of(family).torch_network))
    stored = load_file(tmp_path / f"{name}-4-16" / "model.safetensors")
    for path, linear in encoder_linears(checkpoint_of(family).torch_network):
        rows, columns = shape_of(linear)
        assert stored[f"{path}.codes"].numel() == rows * columns // 2
        assert stored[f"{path}.scales"].shape == (rows, columns // 16)
        assert f"{path}.weight" not in stored
    assert report.parameters == report.parameters_before
    assert report.size_bytes < report.size_bytes_before
    checkpoint = load(tmp_path / f"{name}-4-16")
    assert checkpoint.info.runtime == "packed"
    assert len(open_runtime(tmp_path / f"{name}-4-16").logits(features_of(checkpoint, family, 2))) == 2
    for _, module in checkpoint.torch_network.named_modules():
        assert not isinstance(module, PackedLinear) or module.weight.isfinite().all()


@pytest.mark.parametrize("family", ["roberta", *DECODERS])
@pytest.mark.parametrize("name", METHODS)
def test_embeddings_by_a_flag(name: str, family: str, tmp_path: Path) -> None:
    plain, small = step(name, family, tmp_path, bits=4), step(name, family, tmp_path, bits=4, embeddings=True)
    rows, columns = checkpoint_of(family).torch_network.get_input_embeddings().weight.shape
    assert 0 < plain.size_bytes - small.size_bytes - (4 * rows * columns - rows * (columns // 2 + 3)) + 600 < 1200
    was, now = tables(load(tmp_path / "source").torch_network, load(tmp_path / f"{name}-4-True").torch_network)
    steps = (was.amax(1).clamp_min(0) - was.amin(1).clamp_max(0)) / 15
    assert ((was - now).abs().amax(1) <= 0.501 * steps).all()


@pytest.mark.parametrize("name", METHODS)
def test_errors_fall_as_bits_rise_and_the_same_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    errors = []
    dense = dict(encoder_linears(checkpoint_of("gpt2").torch_network))
    for bits in (2, 3, 4, 8):
        step(name, "gpt2", tmp_path, bits=bits)
        network = load(tmp_path / f"{name}-{bits}").torch_network
        errors.append(sum(float((network.get_submodule(path).weight - weight_of(linear)).square().sum()) for path, linear in dense.items()))
    assert errors == sorted(errors, reverse=True)
    first = (tmp_path / f"{name}-4" / "model.safetensors").read_bytes()
    step(name, "gpt2", tmp_path / "again", bits=4)
    assert (tmp_path / "again" / f"{name}-4" / "model.safetensors").read_bytes() == first


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gptq_after_pruning_keeps_every_zero(family: str, tmp_path: Path) -> None:
    save(checkpoint_of(family), tmp_path / "dense")
    run_step("wanda", get_method("wanda").config(sparsity=0.5), tmp_path / "dense", tmp_path / "source", inputs_of(family, tmp_path / "w"))
    pruned = {path: weight_of(linear) == 0 for path, linear in encoder_linears(load(tmp_path / "source").torch_network)}
    report = step("gptq", family, tmp_path, bits=4)
    network = load(tmp_path / "gptq-4").torch_network
    assert all((network.get_submodule(path).weight[zero] == 0).all() for path, zero in pruned.items())
    assert {claim["what"]: claim["measured"] for claim in report.claims}["zeros that stayed zero"] == sum(int(zero.sum()) for zero in pruned.values()) > 0


@pytest.mark.parametrize("name", METHODS)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"group_size 24 does not divide the 32 columns of .*; choose one that divides all"):
        step(name, "bert", tmp_path, group_size=24)
    with pytest.raises(ValidationError):
        get_method(name).config(bits=5)
    step(name, "bert", tmp_path, bits=8)
    with pytest.raises(InputError, match=f"magnitude cannot follow {name}, which leaves the torch runtime"):
        run_step("magnitude", get_method("magnitude").config(), tmp_path / f"{name}-8", tmp_path / "x", inputs_of("bert", tmp_path / "w"))
    with pytest.raises(InputError, match=f"rtn cannot follow {name}"):
        check_chain([(name, get_method(name).config()), ("rtn", get_method("rtn").config())], "language-modelling", "llama")
    broken = checkpoint_of("bert")
    next(encoder_linears(broken.torch_network))[1].weight.data[0, 0] = 1e6
    save(broken, tmp_path / "broken")
    with pytest.raises(InputError, match="16-bit scales"):
        run_step(name, get_method(name).config(), tmp_path / "broken", tmp_path / "y", inputs_of("bert", tmp_path / "v"))
    assert not any((tmp_path / target).exists() for target in ("x", "y", f"{name}-24"))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_weight_half_a_step_beyond_the_last_gets_the_last_code(bits: int) -> None:
    """The largest weight of a symmetric grid lies just there, and rounds to a code that needs a bit more."""
    top = (1 << bits) - 1
    weight = torch.tensor([[top / 2, -top / 2, 1.0, 0.0, *[0.0] * 4]])
    steps = grid_of(weight, bits, None, symmetric=True)
    assert float(steps.scales) == 1
    codes = codes_on(weight, steps, bits)
    assert (int(codes.max()), int(codes[0, 3])) == (top, 1 << (bits - 1))


def test_columns_with_the_largest_inputs_come_first() -> None:
    inputs = torch.diag(torch.tensor([1.0, 4.0, 2.0, 3.0]))
    _, order = column_by_column.root_of(inputs, 0.01, "here", act_order=True)
    assert order is not None
    assert order.tolist() == [1, 3, 2, 0]
