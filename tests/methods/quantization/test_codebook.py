"""Levels against the paper's and against loops, on all six architectures, with their bytes counted on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.errors import InputError
from recompress.methods.quantization.levels import by_kmeans, by_nf4, nearest, nf4_levels
from recompress.methods.registry import get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears
from recompress.models.checkpoint import load, save
from recompress.models.packed import packed_linear
from recompress.models.surgery import weight_of
from tests.methods.quantization.by_hand import tables
from tests.six import checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER = (-1.0, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0.0, 0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1.0)
"""NF4 as appendix E lists it, to five digits."""


def test_nf4_has_the_levels_of_the_paper() -> None:
    torch.testing.assert_close(nf4_levels(), torch.tensor(PAPER), atol=5e-4, rtol=0)
    assert 0.0 in nf4_levels()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), count=st.sampled_from([4, 8, 16]))
def test_each_weight_gets_its_nearest_level(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, levels = torch.randn(3, 9, generator=draw), torch.randn(3, count, generator=draw).sort(dim=1).values
    gap = (weight[:, :, None] - levels[:, None]).abs()
    codes = nearest(weight, levels).long()
    torch.testing.assert_close(gap.gather(2, codes[:, :, None])[..., 0], gap.amin(-1))


def lloyd(row: list[float], heavy: list[float], count: int, rounds: int) -> list[float]:
    """One row's levels, in plain Python."""
    levels = torch.quantile(torch.tensor(row, dtype=torch.float64), (torch.arange(count).double() + 0.5) / count).tolist()
    for _ in range(rounds):
        members: list[list[int]] = [[] for _ in levels]
        for i, value in enumerate(row):
            members[min(range(count), key=lambda level: (abs(value - levels[level]), level))].append(i)
        levels = [sum(heavy[i] * row[i] for i in group) / sum(heavy[i] for i in group) if group else old for old, group in zip(levels, members, strict=True)]
    return sorted(levels)


@pytest.mark.parametrize("bits", [2, 3])
def test_kmeans_is_lloyds_loop(bits: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, heavy = torch.randn(4, 24, generator=draw, dtype=torch.float64), torch.rand(24, generator=draw, dtype=torch.float64)
    quantized = by_kmeans(weight, heavy, bits, 7)
    assert quantized.levels is not None
    for o in range(4):
        expected = lloyd(weight[o].tolist(), heavy.tolist(), 1 << bits, 7)
        torch.testing.assert_close(quantized.levels[o], torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_as_many_levels_as_weights_change_nothing_and_weights_with_large_inputs_are_kept_best() -> None:
    weight = torch.linspace(-1, 1, 8)[None].repeat(3, 1).half().float()
    packed = packed_linear(by_kmeans(weight, torch.ones(8), 3, 50), torch.nn.Linear(8, 3))
    assert torch.equal(packed.weight, weight)
    draw = torch.Generator().manual_seed(1)
    weight, heavy = torch.randn(8, 64, generator=draw), torch.ones(64)
    heavy[:8] = 1000
    linear = torch.nn.Linear(64, 8)
    errors = [((packed_linear(by_kmeans(weight, by, 2, 50), linear).weight - weight)[:, :8]).square().sum() for by in (heavy, torch.ones(64))]
    assert errors[0] < 0.6 * errors[1]


def test_nf4_scales_by_the_largest_of_each_group() -> None:
    weight = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    quantized = by_nf4(weight, 16)
    for o in range(2):
        for i in range(32):
            scale = float(quantized.scales[o, i // 16])
            assert scale == pytest.approx(float(weight[o, (i // 16) * 16 : (i // 16 + 1) * 16].abs().max()), rel=1e-3)
            best = min(range(16), key=lambda level: abs(scale * float(nf4_levels()[level]) - float(weight[o, i])))
            assert int(quantized.codes[o, i]) == best


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("codebook", get_method("codebook").config(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


@pytest.mark.parametrize("family", each())
def test_on_every_architecture(family: str, tmp_path: Path) -> None:
    for name, dials in {"means": {"bits": 3}, "nf4": {"kind": "nf4", "group_size": 16}}.items():
        report = step(family, tmp_path, name, **dials)
        checkpoint = load(tmp_path / name)
        assert checkpoint.info.runtime == "packed"
        assert report.claims[2]["measured"] == dials.get("bits", 4)
        for path, linear in encoder_linears(checkpoint_of(family).torch_network):
            now, was = checkpoint.torch_network.get_submodule(path).weight, weight_of(linear)
            assert (now - was).square().mean() < 0.1 * was.square().mean()
            assert name == "nf4" or max(len(row.unique()) for row in now) <= 8
    step(family, tmp_path, "again", bits=3)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "means" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["roberta", "llama"])
@pytest.mark.parametrize("kind", ["kmeans", "nf4"])
def test_embeddings_by_a_flag(kind: str, family: str, tmp_path: Path) -> None:
    plain, small = (step(family, tmp_path, str(on), kind=kind, embeddings=on) for on in (False, True))
    rows, columns = checkpoint_of(family).torch_network.get_input_embeddings().weight.shape
    packed = rows * (columns // 2 + 2) + 2 * 16 * (rows if kind == "kmeans" else 1)
    assert abs(plain.size_bytes - small.size_bytes - (4 * rows * columns - packed)) < 1200
    was, now = tables(load(tmp_path / "source").torch_network, load(tmp_path / "True").torch_network)
    assert ((was - now).square().sum(1) < 0.1 * was.square().sum(1)).all()


def test_errors_fall_as_bits_rise(tmp_path: Path) -> None:
    dense = dict(encoder_linears(checkpoint_of("gpt2").torch_network))
    errors = []
    for bits in (2, 3, 4):
        step("gpt2", tmp_path, str(bits), bits=bits, weighted=False)
        network = load(tmp_path / str(bits)).torch_network
        errors.append(sum(float((network.get_submodule(path).weight - weight_of(linear)).square().sum()) for path, linear in dense.items()))
    assert errors == sorted(errors, reverse=True)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nf4 has 4 bits, got 3"):
        step("bert", tmp_path, "x", kind="nf4", bits=3)
    with pytest.raises(InputError, match="leave group_size out"):
        step("bert", tmp_path, "x", group_size=16)
    with pytest.raises(InputError, match="group_size 24 does not divide the 32 columns"):
        step("bert", tmp_path, "x", kind="nf4", group_size=24)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["kmeans", "nf4"])
def test_what_was_pruned_stays_zero(kind: str, tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "dense")
    run_step("wanda", get_method("wanda").config(sparsity=0.4), tmp_path / "dense", tmp_path / "source", inputs_of("bert", tmp_path / "w"))
    step("bert", tmp_path, "made", kind=kind)
    network = load(tmp_path / "made").torch_network
    for path, linear in encoder_linears(load(tmp_path / "source").torch_network):
        weight, zero = network.get_submodule(path).weight, weight_of(linear) == 0
        assert zero.any()
        assert (weight[zero] == 0).all()
        assert (weight[~zero] != 0).float().mean() > 0.5
