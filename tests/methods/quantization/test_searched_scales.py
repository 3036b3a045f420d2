"""Scales of least squared error: against every candidate by hand, never behind the range, and carried into every file that packed weights go to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recompress.errors import EffectMissing
from recompress.methods.quantization import grid, rtn, sensitivity
from recompress.methods.quantization.grid import FACTORS, FewBits, Grid, codes_on, grid_of, rounded, values_of
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.packed.scales import lift_of
from recompress.runtimes import open_runtime
from tests import six

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed: int, shift: float = 0.0, rows: int = 3, columns: int = 16) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def lost(group: list[float], scale: float, zero: float, bits: int) -> float:
    codes = [min(max(round(value / scale) + zero, 0), (1 << bits) - 1) for value in group]
    return sum((scale * (code - zero) - value) ** 2 for code, value in zip(codes, group, strict=True))


def least_by_hand(group: list[float], bits: int, *, symmetric: bool) -> float:
    """Of the steps of the range, and of all others of the formula, in exact scales: what the best of them loses."""
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    largest = max(group, key=abs)
    low, high = min(*group, 0.0), max(*group, 0.0)
    if symmetric:
        every = [(2 * abs(largest) / top, middle), *((-factor * largest / middle, middle) for factor in FACTORS)]
    else:
        every = [(factor * (high - low) / top, 0) for factor in (1.0, *FACTORS)]
        every = [(scale, min(max(round(-low * scale * top / (high - low) / scale), 0), top)) for scale, _ in every]
    return min(lost(group, scale, zero, bits) for scale, zero in every)


@settings(max_examples=60, deadline=None)
@given(bits=st.sampled_from([2, 3, 4, 8]), symmetric=st.booleans(), shift=st.sampled_from([0.0, 0.7, -2.0]), seed=st.integers(0, 999))
def test_no_candidate_loses_less(bits: int, symmetric: bool, shift: float, seed: int) -> None:
    weight = drawn(seed, shift)
    found = grid_of(weight, bits, 8, symmetric=symmetric, scales="mse")
    assert torch.equal(found.scales.half().double(), found.scales), "16 bits hold them"
    for o in range(3):
        for g in range(2):
            group = weight[o, 8 * g : 8 * g + 8].tolist()
            ours = lost(group, float(found.scales[o, g]), float(found.zeros[o, g]), bits)
            # scales of 11 digits are not those of the formula: up to 1/2048 of a scale, at most half the largest code of which moves a value
            slack = 8 * ((1 << bits) * abs(float(found.scales[o, g])) / 2048) ** 2
            assert ours**0.5 <= least_by_hand(group, bits, symmetric=symmetric) ** 0.5 + slack**0.5


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_is_never_behind_the_range_and_ahead_on_random_weights(bits: int, symmetric: bool) -> None:
    weight = drawn(1, rows=64, columns=128)
    squares = {}
    for scales in ("minmax", "mse"):
        steps = grid_of(weight, bits, 32, symmetric=symmetric, scales=scales)
        squares[scales] = (values_of(codes_on(weight, steps, bits), steps) - weight).square().reshape(64, 4, 32).sum(-1)
    assert bool((squares["mse"] <= squares["minmax"]).all())
    assert float(squares["mse"].sum()) < {2: 0.75, 3: 0.9, 4: 0.95, 8: 0.999}[bits] * float(squares["minmax"].sum())


def test_the_largest_weight_takes_the_code_that_the_other_side_has_not() -> None:
    weight = torch.tensor([[8.0, -6.9, 5.1, 3.0, -2.1, 1.0, 0.0, 0.1], [-8.0, 6.9, -5.1, -3.0, 2.1, -1.0, 0.0, -0.1]])
    steps = grid_of(weight, 4, None, symmetric=True, scales="mse")
    assert steps.scales[0, 0] == -steps.scales[1, 0] < 0
    codes = codes_on(weight, steps, 4)
    assert codes[:, 0].tolist() == [0, 0]
    assert torch.equal(codes[0], codes[1])
    assert bool((codes[:, 6] == 8).all()), "zero is zero"


def test_zeros_alone_and_the_smallest_numbers_have_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.cat([torch.zeros(1, 8), torch.full((1, 8), 1e-30), drawn(2, rows=1, columns=8).float()])
    for symmetric in (True, False):
        matrix = rounded(weight, FewBits(scales="mse", symmetric=symmetric))
        values = unpacked_matrix(matrix)
        assert bool(torch.isfinite(values).all())
        assert not bool(values[0].any())
    monkeypatch.setattr(grid, "CHUNK", 8)
    assert torch.equal(rounded(weight, FewBits(scales="mse")).codes, rounded(weight, FewBits(scales="mse")).codes)
    assert lift_of(torch.tensor([[-1e-6, 2e-6]])) == lift_of(torch.tensor([[1e-6, 2e-6]])) > 0


SYMMETRIC = {"group_size": 16, "symmetric": True, "scales": "mse"}


@pytest.mark.parametrize(
    ("name", "dials"),
    [
        ("rtn", {"bits": 3, "embeddings": True, **SYMMETRIC}),
        ("rtn", {"bits": 4, "embeddings": True, "group_size": 16, "scales": "mse"}),
        ("gptq", {"bits": 3, **SYMMETRIC}),
        ("gptq", {"bits": 3, "act_order": False, **SYMMETRIC}),
        ("awq", {"bits": 3, **SYMMETRIC}),
        ("mixed_precision", {"average_bits": 6.0, **SYMMETRIC}),
    ],
    ids=str,
)
def test_a_step_searches_where_it_is_told_to_and_only_there(name: str, dials: dict[str, Any], tmp_path: Path) -> None:
    save(six.checkpoint_of("bert"), tmp_path / "source")
    usual = {dial: value for dial, value in dials.items() if dial != "scales"}
    config = get_method(name).config
    reports = {place: run_step(name, config.model_validate(given), tmp_path / "source", tmp_path / place, six.inputs_of("bert", tmp_path / f"{place}-work"))
               for place, given in (("searched", dials), ("usual", usual))}  # fmt: skip
    claims = [[claim["what"] for claim in report.claims] for report in reports.values()]
    assert any("scales: minmax" in claim for claim in claims[0]) == (name in ("rtn", "mixed_precision"))
    assert not any("scales: minmax" in claim for claim in claims[1])
    networks = {place: load(tmp_path / place).torch_network for place in reports}
    searched = [module for module in networks["searched"].modules() if hasattr(module, "scales")]
    others = [module for module in networks["usual"].modules() if hasattr(module, "scales")]
    assert len(searched) == len(others) > 0
    assert not any(torch.equal(one.scales, other.scales) for one, other in zip(searched, others, strict=True))
    assert all(bool((module.scales < 0).any()) == ("symmetric" in dials) for module in searched)


def test_bits_are_chosen_by_the_damage_of_the_steps_that_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(six.checkpoint_of("bert"), tmp_path / "source")
    asked: set[str] = set()

    def watched(*given: Any, scales: str = "minmax", **dials: Any) -> Grid:
        asked.add(scales)
        return grid_of(*given, scales=scales, **dials)

    monkeypatch.setattr(sensitivity, "grid_of", watched)
    config = get_method("mixed_precision").config.model_validate({"average_bits": 6.0, "calibration_examples": 2, **SYMMETRIC})
    run_step("mixed_precision", config, tmp_path / "source", tmp_path / "made", six.inputs_of("bert", tmp_path / "work"))
    assert asked == {"mse"}


def test_who_searches_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(six.checkpoint_of("bert"), tmp_path / "source")
    monkeypatch.setattr(rtn, "rounded", lambda weight, config: rounded(weight, config.model_copy(update={"scales": "minmax"})))
    with pytest.raises(EffectMissing, match="squared error of the weights, below 99.9% of that with scales: minmax"):
        run_step("rtn", get_method("rtn").config.model_validate(SYMMETRIC), tmp_path / "source", tmp_path / "made", six.inputs_of("bert", tmp_path / "work"))


def test_steps_of_before_keep_their_names() -> None:
    assert "scales" not in get_method("rtn").config().model_dump()
    assert get_method("rtn").config(scales="mse").model_dump()["scales"] == "mse"
    assert get_method("qat").config().model_dump()["scales"] == "minmax", "it was always said there"


@pytest.mark.parametrize("to", ["onnx_nbits", "gguf_nbits"])
def test_negative_scales_are_carried_into_files(to: str, tmp_path: Path) -> None:
    family = "roberta" if to == "onnx_nbits" else "llama"
    save(six.checkpoint_of(family), tmp_path / "source")
    inputs = six.inputs_of(family, tmp_path / "work")
    run_step("rtn", get_method("rtn").config.model_validate({**SYMMETRIC, "group_size": 32, "bits": 4}), tmp_path / "source", tmp_path / "packed", inputs)
    run_step(to, get_method(to).config(), tmp_path / "packed", tmp_path / "file", inputs)
    features = six.features_of(load(tmp_path / "packed"), family)
    was, now = (open_runtime(tmp_path / place).logits(features) for place in ("packed", "file"))
    for one, other in zip(was, now, strict=True):
        np.testing.assert_allclose(other, one, rtol=0.02, atol=0.02 * float(np.abs(one).max()))


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_large_matrix_is_searched_in_parts_and_all_of_it_is(symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = drawn(5, rows=7)
    whole = grid_of(weight, 4, 8, symmetric=symmetric, scales="mse")
    monkeypatch.setattr(grid, "CHUNK", 2 * weight.shape[1])
    parts = grid_of(weight, 4, 8, symmetric=symmetric, scales="mse")
    assert parts.scales.equal(whole.scales)
    assert parts.zeros.equal(whole.zeros)
    assert len(parts.scales) == 7
