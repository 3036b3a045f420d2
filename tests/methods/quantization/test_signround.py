"""SignRound: rounding with offsets in loops, gradients against automatic ones, the whole learning against a walk in plain torch; never behind rounding on its text; and other rooms take what it packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from recompress.errors import EffectMissing, InputError
from recompress.methods.quantization import learned_rounding, signround
from recompress.methods.quantization.grid import FewBits, Grid, rounded
from recompress.methods.quantization.learned_rounding import Choice, codes_with, nearest, start_of
from recompress.methods.quantization.signround import SignRound
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.methods.sharing.share_layers import ShareLayers
from recompress.models.architecture import encoder_linears, is_linear, layers_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import packed_linear
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of
from tests.methods.quantization.by_hand import FAMILIES, Rows, rows_of, share_equal, uneven
from tests.six import checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
round_with = jaxtyped(typechecker=beartype)(learned_rounding.round_with)
gradients = jaxtyped(typechecker=beartype)(learned_rounding.gradients)
KINDS = st.sampled_from([(False, "minmax"), (True, "minmax"), (False, "mse"), (True, "mse")])
FEW: dict[str, Any] = {"bits": 3, "steps": 8, "calibration_examples": 12}


def drawn(seed: int, config: FewBits, rows: int = 3, columns: int = 16) -> tuple[Tensor, Grid, Choice]:
    """A matrix, its steps, and a choice that is far from the first one."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw) + 0.3
    start = start_of(weight, config)
    upper, lower = (torch.rand(start.scales.shape, generator=draw) * 0.6 + 0.4 for _ in range(2))
    return weight, start, Choice(torch.rand(weight.shape, generator=draw) - 0.5, upper, lower)


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from([2, 3, 4, 8]), kind=KINDS, group_size=st.sampled_from([None, 8]), seed=st.integers(0, 999), tiny=st.booleans())
def test_without_a_choice_it_is_rounding_to_the_nearest(bits: Any, kind: tuple[bool, Any], group_size: int | None, seed: int, tiny: bool) -> None:
    config = FewBits(bits=bits, group_size=group_size, symmetric=kind[0], scales=kind[1])
    weight = drawn(seed, config)[0] * (1e-20 if tiny else 1)
    weight[0] = 0
    expected, start = rounded(weight, config), start_of(weight, config)
    packed = codes_with(weight, start, nearest(weight, start), config)
    assert torch.equal(packed.codes, expected.codes)
    assert torch.equal(packed.scales, expected.scales)
    assert (packed.zeros is None) == config.symmetric
    assert packed.zeros is None or expected.zeros is None or torch.equal(packed.zeros, expected.zeros)


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from([2, 3, 4]), kind=KINDS, seed=st.integers(0, 999))
def test_each_weight_goes_where_offset_and_ends_say(bits: Any, kind: tuple[bool, Any], seed: int) -> None:
    config = FewBits(bits=bits, group_size=8, symmetric=kind[0], scales=kind[1])
    weight, start, choice = drawn(seed, config)
    top, given_values = (1 << bits) - 1, round_with(weight, start, choice, config)
    for o in range(3):
        for i in range(16):
            s0, z0, alpha, beta = (float(part[o, i // 8]) for part in (start.scales, start.zeros, choice.upper, choice.lower))
            scale = alpha * s0 if kind[0] else s0 * (alpha * (top - z0) + beta * z0) / top
            held = float(given_values.grid.scales[o, i // 8])
            assert held == pytest.approx(scale, rel=2**-11)
            assert torch.tensor(held).half().float() == held
            zero = z0 if kind[0] else min(max(round(beta * z0 * s0 / held), 0), top)
            code = min(max(round(float(weight[o, i]) / held + float(choice.offsets[o, i])) + zero, 0), top)
            assert float(given_values.values[o, i]) == pytest.approx(held * (code - zero), rel=1e-5, abs=1e-6)
    assert torch.equal(unpacked_matrix(codes_with(weight, start, choice, config)), given_values.values)


def calls_of(network: Any, index: int, rows: Rows) -> list[tuple[Any, Any]]:
    """What a layer is called with for each text, without a cache, which calling it again would lengthen."""
    network.config.use_cache = False
    calls = list[tuple[Any, Any]]()
    hook = layers_of(network)[index].module.register_forward_pre_hook(lambda _, given, named: calls.append((given, named)), with_kwargs=True)
    with torch.no_grad():
        for row in rows:
            network(**row)
    hook.remove()
    return calls


def straight(exact: Tensor, held: Tensor) -> Tensor:
    """``held`` in value, ``exact`` for gradients."""
    return exact + (held - exact).detach()


def by_torch(weight: Tensor, start: Grid, choice: Choice, config: FewBits) -> Tensor:
    """W^, written so that automatic gradients are those of the paper."""
    top, grid = (1 << config.bits) - 1, learned_rounding.grid_with(start, Choice(*(part.detach() for part in choice)), config)
    if config.symmetric:
        scales, zeros = straight(start.scales * choice.upper, grid.scales), start.zeros
    else:
        high, low = start.scales * (top - start.zeros), -start.scales * start.zeros
        scales = straight((choice.upper * high - choice.lower * low) / top, grid.scales)
        zeros = straight(-choice.lower * low / scales, grid.zeros)
    scales, zeros = scales[:, :, None], zeros[:, :, None]
    apart = (part.reshape(len(weight), start.scales.shape[1], -1) for part in (weight, choice.offsets))
    at = next(apart) / scales + next(apart)
    return (((straight(at, at.round()) + zeros).clamp(0, top) - zeros) * scales).flatten(1)


@pytest.mark.parametrize("kind", [(False, "minmax"), (True, "minmax"), (False, "mse"), (True, "mse")])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_that_go_straight_through_rounding(seed: int, kind: tuple[bool, Any]) -> None:
    config = FewBits(bits=3 if seed % 2 else 2, group_size=8, symmetric=kind[0], scales=kind[1])
    weight, start, choice = drawn(seed, config, rows=5, columns=32)
    slope = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed + 50))
    wide, started = weight.double(), Grid(start.scales.double(), start.zeros.double())
    leaves = Choice(*(part.double().requires_grad_() for part in choice))
    values = by_torch(wide, started, leaves, config)
    expected = torch.autograd.grad(values, [*leaves], slope.double(), allow_unused=True)
    given_values = round_with(weight, start, choice, config)
    torch.testing.assert_close(given_values.values.double(), values.detach(), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(weight, start, choice, given_values, slope, config), expected, strict=True):
        torch.testing.assert_close(ours.double(), torch.zeros_like(ours).double() if theirs is None else theirs, rtol=1e-3, atol=1e-3)
    assert bool(((given_values.steps < 0) | (given_values.steps > (1 << config.bits) - 1)).any()), "some weights lie beyond the ends"


def test_a_step_goes_against_the_signs_and_stays_within_the_limits() -> None:
    choice = Choice(torch.tensor([[0.0, 0.45, -0.45, 0.2]]), torch.tensor([[0.5, 1.0]]), torch.tensor([[0.11, 0.7]]))
    slopes = Choice(torch.tensor([[3.0, -0.01, 9.0, 0.0]]), torch.tensor([[-2.0, -2.0]]), torch.tensor([[1.0, 0.0]]))
    learned_rounding.step(choice, slopes, 0.1)
    torch.testing.assert_close(choice.offsets, torch.tensor([[-0.1, 0.5, -0.5, 0.2]]))
    torch.testing.assert_close(choice.upper, torch.tensor([[0.6, 1.0]]))
    torch.testing.assert_close(choice.lower, torch.tensor([[0.1, 0.7]]))


@pytest.mark.parametrize("symmetric", [False, True])
def test_zeros_stay_zero_however_far_their_offsets_went(symmetric: bool) -> None:
    config = FewBits(bits=3, symmetric=symmetric)
    weight, start, choice = drawn(1, config)
    weight[:, ::3] = 0
    for edge in (-0.5, 0.5):
        choice.offsets.fill_(edge)
        assert bool((round_with(weight, start, choice, config).values[:, ::3] == 0).all())


def learned_by_hand(network: Any, rows: Rows, config: SignRound, sign: float = 1.0) -> dict[str, Tensor]:
    """All layers, one behind the other: plain forward passes, one text after another, automatic gradients over all of the text in each step, and the best of
    the beginning and of the state after each quarter of the steps. ``sign`` -1 climbs."""
    matrices: dict[str, Tensor] = {}
    paths = {module: name for name, module in network.named_modules()}
    for index in range(len(layers_of(network))):
        layer, calls = layers_of(network)[index].module, calls_of(network, index, rows)
        linears = {name: part for name, part in layer.named_modules() if is_linear(part)}
        weights = {name: weight_of(linear).clone() for name, linear in linears.items()}
        starts = {name: start_of(weight, config) for name, weight in weights.items()}
        choices = {name: nearest(weight, starts[name]) for name, weight in weights.items()}

        def loss(values: Any, layer: Any = layer, linears: Any = linears, calls: Any = calls) -> Tensor:
            held = {f"{name}.weight": values[name] if isinstance(linears[name], nn.Linear) else values[name].T for name in values}
            total = torch.zeros(())
            for given_values, named in calls:
                now, was = (answer[0] if isinstance(answer, tuple) else answer for answer in
                            (functional_call(layer, held, given_values, named), layer(*given_values, **named)))  # fmt: skip
                total = total + (now - was).square().sum()
            return total

        best, least = dict[str, Tensor](), float("inf")
        for number in range(config.steps + 1):
            leaves = {name: Choice(*(part.clone().requires_grad_() for part in choice)) for name, choice in choices.items()}
            values = {name: by_torch(weights[name], starts[name], leaves[name], config) for name in weights}
            now = loss(values)
            if number % (config.steps // 4) == 0 and now.item() < least:
                best, least = {name: value.detach() for name, value in values.items()}, now.item()
            for name, leaf in leaves.items():
                every = torch.autograd.grad(now, [*leaf], retain_graph=True, allow_unused=True)
                moved = [part if slope is None else part - sign * (1 / config.steps) * (1 - number / config.steps) * slope.sign()
                         for part, slope in zip(choices[name], every, strict=True)]  # fmt: skip
                choices[name] = Choice(*(part.clamp(low, high) for part, low, high in zip(moved, (-0.5, 0.1, 0.1), (0.5, 1.0, 1.0), strict=True)))
        for name, linear in linears.items():
            matrices[paths[linear]] = best[name]
            weight_of(linear).copy_(best[name])
    return matrices


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dials", [{}, {"group_size": 16, "symmetric": True, "bits": 2}], ids=str)
def test_what_is_saved_was_learned_from_what_flows_into_each_layer_behind_rounded_ones(dials: dict[str, Any], family: str, tmp_path: Path) -> None:
    """And neither climbing, nor rounding to the nearest, nor learning on other text ends there."""
    save(uneven(family), tmp_path / "source")
    inputs, config = inputs_of(family, tmp_path / "work", 24, 3), SignRound(**FEW | dials)
    run_step("signround", config, tmp_path / "source", tmp_path / "made", inputs)
    source = load(tmp_path / "source")
    rows = rows_of(source, inputs, config.calibration_examples)
    expected = learned_by_hand(source.torch_network.eval(), rows, config)
    network = load(tmp_path / "made").torch_network
    saved = {path: network.get_submodule(path).weight for path in expected}
    assert share_equal(saved, expected) > 0.9
    dense = dict(encoder_linears(load(tmp_path / "source").torch_network))
    assert share_equal({path: unpacked_matrix(rounded(weight_of(dense[path]), config)) for path in saved}, saved) < 0.8
    other = load(tmp_path / "source")
    assert share_equal(learned_by_hand(other.torch_network.eval(), rows[:1], config), saved) < 0.8


def error_of(network: Any, values: dict[str, Tensor], rows: Rows) -> float:
    """Of what the first layer puts out, with other matrices."""
    layer, calls = layers_of(network)[0].module, calls_of(network, 0, rows)
    with torch.no_grad():
        held = {f"{name}.weight": value if isinstance(layer.get_submodule(name), nn.Linear) else value.T for name, value in values.items()}
        pairs = ((functional_call(layer, held, *call), layer(*call[0], **call[1])) for call in calls)
        return sum(float((now[0] - was[0] if isinstance(now, tuple) else now - was).square().sum()) for now, was in pairs)


@pytest.mark.parametrize("rate", [0.5, 0.02])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_on_its_text_it_is_never_behind_rounding_however_wild_its_steps(family: str, rate: float, tmp_path: Path) -> None:
    source, inputs = uneven(family), inputs_of(family, tmp_path / "work", 24, 3)
    config = SignRound(bits=4, steps=4, learning_rate=rate, calibration_examples=12)
    rows, dense = rows_of(source, inputs, 12), uneven(family).torch_network.eval()
    inputs.workdir.mkdir()
    done = get_method("signround").run(source, config, inputs)
    layer = layers_of(dense)[0].module
    linears: dict[str, Any] = {name: part for name, part in layer.named_modules() if is_linear(part)}
    learned: dict[str, Any] = {name: layers_of(done.torch_network)[0].module.get_submodule(name).weight for name in linears}
    plain = {name: unpacked_matrix(rounded(weight_of(linear), config)) for name, linear in linears.items()}
    ours, theirs = (error_of(dense, values, rows) for values in (learned, plain))
    assert ours <= theirs * (1 + 1e-6)


def test_clip_false_leaves_the_steps_as_they_are(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    for clip in (True, False):
        run_step("signround", SignRound(clip=clip, **FEW), tmp_path / "source", tmp_path / str(clip), inputs_of("bert", tmp_path / f"work-{clip}"))
    stored = {clip: load_file(tmp_path / str(clip) / "model.safetensors") for clip in (True, False)}
    for path, linear in encoder_linears(load(tmp_path / "source").torch_network):
        plain = packed_linear(rounded(weight_of(linear), SignRound(**FEW)), linear)
        assert torch.equal(stored[False][f"{path}.scales"], plain.scales)
        assert not torch.equal(stored[True][f"{path}.scales"], plain.scales)


def test_killed_in_the_second_layer_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoint_of("gpt2"), tmp_path / "source")
    run_step("signround", SignRound(**FEW), tmp_path / "source", tmp_path / "whole", inputs_of("gpt2", tmp_path / "work"))
    usual, calls = signround.learn, list[int]()

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*given)

    monkeypatch.setattr(signround, "learn", interrupted)
    for end in ("killed", "again"):
        try:
            run_step("signround", SignRound(**FEW), tmp_path / "source", tmp_path / end, inputs_of("gpt2", tmp_path / "other"))
        except KeyboardInterrupt:
            assert end == "killed"
    assert len(calls) == 3  # the first layer was not learned again
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"layers"}, "what layers put out is not left behind"


def test_layers_that_share_their_weights_are_learned_once(tmp_path: Path) -> None:
    save(uneven("bert"), tmp_path / "source")
    run_step("share_layers", ShareLayers(groups=1), tmp_path / "source", tmp_path / "shared", inputs_of("bert", tmp_path / "w"))
    run_step("signround", SignRound(**FEW), tmp_path / "shared", tmp_path / "made", inputs_of("bert", tmp_path / "v"))
    first, second = (layer.query for layer in layers_of(load(tmp_path / "made").torch_network))
    assert first is second


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_what_was_pruned_stays_pruned(family: str, tmp_path: Path) -> None:
    save(uneven(family), tmp_path / "dense")
    run_step("wanda", get_method("wanda").config(), tmp_path / "dense", tmp_path / "source", inputs_of(family, tmp_path / "w"))
    report = run_step("signround", SignRound(**FEW), tmp_path / "source", tmp_path / "made", inputs_of(family, tmp_path / "v"))
    zeros = sum(int((weight_of(linear) == 0).sum()) for _, linear in encoder_linears(load(tmp_path / "source").torch_network))
    assert {claim["what"]: claim["measured"] for claim in report.claims}["zeros that stayed zero"] == zeros > 0


def test_draws_take_each_batch_once_before_any_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import random
    from types import SimpleNamespace

    monkeypatch.setattr(signround, "STEP_TOKENS", 100)
    flowing: Any = SimpleNamespace(batches=[{"input_ids": torch.zeros(2, 30)} for _ in range(6)])
    for batch in flowing.batches:
        batch["input_ids"] = batch["input_ids"].numpy()
    order = signround._drawn(flowing, random.Random(0))
    rounds = [sorted(i for _ in range(3) for i in next(order)) for _ in range(5)]
    assert rounds == [list(range(6))] * 5
    few: Any = SimpleNamespace(batches=flowing.batches[:1])
    assert next(signround._drawn(few, random.Random(0))) == [0]


@pytest.mark.parametrize("change", ["climbs", "nothing"])
def test_learning_that_goes_nowhere_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps in the direction of the gradients, and none: the beginning is kept, which is rounding, and that is no gain."""
    usual = learned_rounding.step
    broken = {"climbs": lambda choice, slopes, rate: usual(choice, slopes, -rate), "nothing": lambda *_: None}[change]
    monkeypatch.setattr(signround, "step", broken)
    save(uneven("bert"), tmp_path / "source")
    with pytest.raises(EffectMissing, match="error of what whole layers put out, at most 98% of that of rtn"):
        run_step("signround", SignRound(**FEW), tmp_path / "source", tmp_path / "made", inputs_of("bert", tmp_path / "work"))
    assert not (tmp_path / "made").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "source")
    with pytest.raises(InputError, match=r"group_size 24 does not divide the 32 columns of .*; choose one that divides all"):
        run_step("signround", SignRound(group_size=24), tmp_path / "source", tmp_path / "made", inputs_of("bert", tmp_path / "work"))
    for wrong in ({"steps": 3}, {"learning_rate": 0.0}, {"learning_rate": 0.6}, {"bits": 5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SignRound.model_validate(wrong)
