"""The choice against all choices, the damage against two models side by side, the budget on disk, on all six architectures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recompress.errors import InputError, IntegrityError
from recompress.methods.quantization import sensitivity
from recompress.methods.quantization.budget import Option, best_choice
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.methods.quantization.mixed_precision import BITS, MixedPrecision, budget_of, choose, options_of
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import PackedLinear, packed_linear
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from recompress.training.run import weights_sha256
from tests.methods.quantization.by_hand import tables
from tests.six import DECODERS, checkpoint_of, each, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
OPTION = st.builds(Option, st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0, 7.5]))


@settings(max_examples=300, deadline=None)
@given(options=st.lists(st.lists(OPTION, min_size=1, max_size=5), min_size=1, max_size=6), budget=st.integers(0, 200))
def test_no_other_choice_within_the_budget_damages_less(options: list[list[Option]], budget: int) -> None:
    every = [choice for choice in itertools.product(*options) if sum(option.size for option in choice) <= budget]
    indices = best_choice(options, budget)
    if not every:
        assert indices is None
        return
    assert indices is not None
    chosen = [layer[i] for layer, i in zip(options, indices, strict=True)]
    size, damage = sum(option.size for option in chosen), sum(option.damage for option in chosen)
    best = min(sum(option.damage for option in choice) for choice in every)
    assert size <= budget
    assert damage == best
    assert size == min(sum(option.size for option in choice) for choice in every if sum(option.damage for option in choice) == best)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), average=st.floats(3.2, 31.9), untouched=st.booleans())
def test_the_bits_of_layers_are_the_best_there_are(seed: int, average: float, untouched: bool) -> None:
    """With damages as they were measured, not monotone in the bits: against all 5^4 choices."""
    draw = np.random.default_rng(seed)
    shapes = {f"layer {i}": (int(draw.integers(1, 9)), int(8 * draw.integers(1, 9))) for i in range(4)}
    damages = {name: {str(bits): float(draw.exponential()) for bits in BITS} for name in shapes}
    config = MixedPrecision(average_bits=average, untouched=untouched)
    options = [options_of(*shape, damages[name], config) for name, shape in shapes.items()]
    budget = budget_of(sum(rows * columns for rows, columns in shapes.values()), config)
    every = [choice for choice in itertools.product(*options) if sum(option.size for option in choice) <= budget]
    if not every:
        with pytest.raises(InputError, match="is too little"):
            choose(shapes, damages, config)
        return
    chosen = choose(shapes, damages, config)
    damage = sum(damages[name][str(bits)] if bits else 0.0 for name, bits in chosen.items())
    assert damage == pytest.approx(min(sum(option.damage for option in choice) for choice in every), abs=1e-12)


def test_budgets_are_bytes() -> None:
    assert budget_of(1000, MixedPrecision(average_bits=4.5)) == 562
    assert budget_of(1000, MixedPrecision(share=0.25)) == 1000
    assert options_of(4, 16, dict.fromkeys(("2", "3", "4", "8"), 1.0), MixedPrecision(group_size=8)) == [
        Option(4 * 4 + 4 * 2 * 3 + 8, 1.0),
        Option(4 * 6 + 4 * 2 * 3 + 8, 1.0),
        Option(4 * 8 + 4 * 2 * 3 + 8, 1.0),
        Option(4 * 16 + 4 * 2 * 3 + 8, 1.0),
        Option(4 * 4 * 16, 0.0),
    ]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_the_damage_is_the_kl_of_two_models_side_by_side(family: str, tmp_path: Path) -> None:
    dense = checkpoint_of(family)
    features = features_of(dense, family, 7)
    before = weights_sha256(dense.torch_network)
    damages = sensitivity.measure(dense.torch_network, features, [FewBits(bits=2), FewBits(bits=4)], tmp_path, "x")
    assert weights_sha256(dense.torch_network) == before
    reference = runtime_of(dense).logits(features)
    for name, _ in list(encoder_linears(dense.torch_network))[1::3]:
        changed = checkpoint_of(family)
        linear: Any = changed.torch_network.get_submodule(name)
        weight_of(linear).copy_(packed_linear(rounded(weight_of(linear), FewBits(bits=2)), linear).weight)
        total, count = 0.0, 0
        for was, now in zip(reference, runtime_of(changed).logits(features), strict=True):
            p, q = (torch.from_numpy(np.atleast_2d(row)).double().log_softmax(-1) for row in (was, now))
            total += float((p.exp() * (p - q)).sum())
            count += len(p)
        assert damages[name]["2"] == pytest.approx(total / count, rel=1e-2, abs=1e-8)
    assert np.mean([row["4"] for row in damages.values()]) < 0.3 * np.mean([row["2"] for row in damages.values()])


@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_symmetric_steps_store_no_zeros(symmetric: bool, rounding: str, tmp_path: Path) -> None:
    step("gpt2", tmp_path, "made", average_bits=6.0, symmetric=symmetric, group_size=16, untouched=False, calibration_examples=2, rounding=rounding)
    network = load(tmp_path / "made").torch_network
    packed = [network.get_submodule(name) for name, _ in encoder_linears(load(tmp_path / "source").torch_network)]
    assert {"zeros" in module.tensors for module in packed if isinstance(module, PackedLinear)} == {not symmetric}
    assert all(module.tensors["scales"].shape[1] == module.columns_count // 16 for module in packed if isinstance(module, PackedLinear))


def test_damages_of_something_else_are_not_taken_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another model, other text, other steps, or other batches, whose sums would be mixed with those of the old."""
    first, other = checkpoint_of("bert"), checkpoint_of("bert", seed=1)
    text, plain = features_of(first, "bert", 5), [FewBits(bits=2)]
    as_long = [feature | {"input_ids": feature["input_ids"][::-1]} for feature in text]  # so that it is cut into the same batches
    sensitivity.measure(first.torch_network, text, plain, tmp_path, "x")
    before = (tmp_path / "sensitivity.json").read_text()
    for number, (model, features, configs) in enumerate(((other, text, plain), (first, as_long, plain), (first, text, [FewBits(bits=2, symmetric=True)]))):
        (tmp_path / "sensitivity.json").write_text(before)
        (tmp_path / str(number)).mkdir()
        measured = sensitivity.measure(model.torch_network, features, configs, tmp_path, "x")
        assert measured == sensitivity.measure(model.torch_network, features, configs, tmp_path / str(number), "x")
    (tmp_path / "sensitivity.json").write_text(before)
    monkeypatch.setattr(sensitivity, "BATCH_SIZE", 1)
    sensitivity.measure(first.torch_network, text, plain, tmp_path, "x")
    assert json.loads((tmp_path / "sensitivity.json").read_text())["stamp"] != json.loads(before)["stamp"]


def test_a_killed_measuring_goes_on_and_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = checkpoint_of("llama").torch_network
    features = features_of(checkpoint_of("llama"), "llama", 10)
    configs = [FewBits(bits=3)]
    whole = sensitivity.measure(network, features, configs, tmp_path, "x")
    (tmp_path / "killed").mkdir()
    real, calls = sensitivity._write, []

    def killed(place: Path, value: dict[str, Any]) -> None:
        real(place, value)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sensitivity, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            sensitivity.measure(network, features, configs, tmp_path / "killed", "x")
    asked: list[int] = []
    monkeypatch.setattr(sensitivity, "_write", lambda place, value: asked.append(value["batches"]))
    assert sensitivity.measure(checkpoint_of("llama").torch_network, features, configs, tmp_path / "killed", "x") == whole
    assert asked == [3]


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("mixed_precision", MixedPrecision(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 12))


@pytest.mark.parametrize("family", each())
@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
def test_on_every_architecture(rounding: str, family: str, tmp_path: Path) -> None:
    """Bits differ from layer to layer, and what stands on the disk is within the budget."""
    step(family, tmp_path, "made", average_bits=7.0, rounding=rounding, calibration_examples=4)
    network = load(tmp_path / "made").torch_network
    used = numbers = 0
    bits = set()
    for name, linear in encoder_linears(checkpoint_of(family).torch_network):
        module = network.get_submodule(name)
        packed = isinstance(module, PackedLinear)
        bits.add(module.bits if packed else 32)
        used += sum(buffer.numel() * buffer.element_size() for buffer in module.buffers()) if packed else 4 * linear.weight.numel()
        numbers += linear.weight.numel()
    assert used <= 7 * numbers / 8
    assert len(bits) > 1
    if rounding == "gptq":
        step(family, tmp_path, "again", average_bits=7.0, rounding=rounding, calibration_examples=4)
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "made" / "model.safetensors").read_bytes()


def test_more_bytes_damage_less_and_nearly_all_of_them_change_nearly_nothing(tmp_path: Path) -> None:
    dense = checkpoint_of("llama")
    features = features_of(dense, "llama")
    reference, errors = runtime_of(dense).logits(features), []
    for share in (0.15, 0.3, 0.99):
        step("llama", tmp_path, f"{share}", share=share)
        now = runtime_of(load(tmp_path / f"{share}")).logits(features)
        errors.append(max(float(np.abs(a - b).max()) for a, b in zip(reference, now, strict=True)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("family", ["distilbert", *DECODERS])
def test_embeddings_by_a_flag(family: str, tmp_path: Path) -> None:
    plain, small = (step(family, tmp_path, name, embeddings=on, average_bits=9.0, calibration_examples=2) for name, on in (("a", False), ("b", True)))
    rows, columns = checkpoint_of(family).torch_network.get_input_embeddings().weight.shape
    assert abs(plain.size_bytes - small.size_bytes - (4 * rows * columns - rows * (columns + 3))) < 1200
    was, now = tables(load(tmp_path / "source").torch_network, load(tmp_path / "b").torch_network)
    steps = (was.amax(1).clamp_min(0) - was.amin(1).clamp_max(0)) / 255
    assert ((was - now).abs().amax(1) <= 0.501 * steps).all()


def test_what_is_refused(tmp_path: Path) -> None:
    shapes = [shape_of(linear) for _, linear in encoder_linears(checkpoint_of("bert").torch_network)]
    least = sum(rows * (columns // 4 + 3) + 8 for rows, columns in shapes)
    numbers = sum(rows * columns for rows, columns in shapes)
    with pytest.raises(InputError, match=rf"average_bits 2 is too little: .* average_bits is {8 * least / numbers:.4g} \(share"):
        step("bert", tmp_path, "x", average_bits=2.0)
    with pytest.raises(InputError, match=r"share 0.01 is too little"):
        step("bert", tmp_path, "x", share=0.01)
    with pytest.raises(InputError, match="group_size 24 does not divide"):
        step("bert", tmp_path, "x", group_size=24)
    for dials in ({"share": 1.0}, {"average_bits": 32.0}, {"rounding": "awq"}):
        with pytest.raises(ValidationError):
            MixedPrecision(**dials)
    broken = checkpoint_of("bert")
    broken.torch_network.classifier.bias.data[0] = torch.nan
    with pytest.raises(IntegrityError, match="not finite"):
        sensitivity.measure(broken.torch_network, features_of(broken, "bert"), [FewBits()], tmp_path, "x")
    assert not (tmp_path / "x").exists()


def test_the_divergence_is_that_of_what_was_said_from_what_is_said_now() -> None:
    """KL is no distance: by hand, for two coins that are far from each other."""
    said, now = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    assert sensitivity.divergence(said.log(), now.log()) == pytest.approx(0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5), rel=1e-6)
    assert sensitivity.divergence(now.log(), said.log()) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-6)


def test_a_layer_is_left_untouched_only_where_that_is_allowed() -> None:
    damage = {str(bits): 1.0 for bits in BITS}
    assert len(options_of(8, 16, damage, MixedPrecision(untouched=False))) == len(BITS)
    assert options_of(8, 16, damage, MixedPrecision(untouched=True))[-1] == Option(4 * 8 * 16, 0.0)
