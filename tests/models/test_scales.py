"""Rounding does not depend on how large weights are, in any packed format, and models packed before there was a lift are read as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.methods.quantization import awq, grid, levels, llm_int8, vector
from recompress.methods.quantization.grid import FewBits
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import Packed, PackedLinear
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.packed.scales import LARGEST, MOST, SMALLEST, held_above, held_near, lift_of, lifted, lowered
from recompress.runtimes import open_runtime
from tests.six import checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = torch.randn((16, 32), generator=torch.Generator().manual_seed(0))
HEAVY = torch.rand(32, generator=torch.Generator().manual_seed(1)) + 0.1
FORMATS: dict[str, Any] = {
    "8 bits": lambda weight: grid.rounded(weight, FewBits(bits=8)),
    "groups": lambda weight: grid.rounded(weight, FewBits(bits=4, group_size=8)),
    "symmetric": lambda weight: grid.rounded(weight, FewBits(bits=3, symmetric=True)),
    "awq": lambda weight: awq.quantize_matrix(weight, HEAVY, HEAVY.diag(), FewBits()),
    "nf4": lambda weight: levels.by_nf4(weight, 16),
    "means": lambda weight: levels.by_kmeans(weight, HEAVY, 4, 10),
    "outliers": lambda weight: llm_int8.quantize_matrix(weight, torch.tensor([3, 7])),
    "vectors": lambda weight: vector.quantize_matrix(weight, HEAVY, None, vector.Vector(bits=4), 0),
}


@settings(max_examples=200, deadline=None)
@given(st.floats(SMALLEST, LARGEST, width=32))
def test_held_numbers_are_those_of_16_bits(number: float) -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    assert float(held_above(torch.tensor([number]))) == every[every >= number].min()
    assert float(held_near(torch.tensor([number]))) == float(np.float16(number))


@settings(max_examples=100, deadline=None)
@given(number=st.floats(2.0**-80, 1.0, width=32), share=st.floats(2.0**-27, 1.0, width=32))
def test_small_scales_come_back_exactly(number: float, share: float) -> None:
    """A matrix whose scales lie far apart, as far as one lift reaches, and far below what 16 bits hold."""
    scales = held_above(torch.tensor([[number], [number * share], [0.0]]))
    lift = lift_of(scales)
    assert lowered(lifted(scales, lift), lift).equal(scales)
    assert (scales[:2, 0] >= torch.tensor([number, number * share])).all()
    assert (scales[:2, 0] <= torch.tensor([number, number * share]) * (1 + 2.0**-10)).all()
    assert scales[2] > 0
    assert lift == 0 or float(scales.min()) < SMALLEST
    assert lift <= MOST


@pytest.mark.parametrize("name", FORMATS)
def test_a_power_of_two_changes_no_digit(name: str) -> None:
    whole = unpacked_matrix(FORMATS[name](BATCH))
    assert 0 < float((whole - BATCH).norm()) < 0.7 * float(BATCH.norm())
    for power in (-5, -13, -20, -35):
        assert torch.equal(unpacked_matrix(FORMATS[name](BATCH * 2.0**power)), whole * 2.0**power)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("awq", "vectors")])  # these make one choice for all rows
def test_nor_does_it_where_one_row_is_small(name: str) -> None:
    """Rows of 1 and of a millionth in one matrix, and one of zeros: each as near as it would be alone."""
    both = torch.cat([BATCH, BATCH * 2.0**-20, 0 * BATCH[:1]])
    values = unpacked_matrix(FORMATS[name](both))
    assert torch.equal(values[:16], unpacked_matrix(FORMATS[name](BATCH)))
    assert torch.equal(values[16:32], unpacked_matrix(FORMATS[name](BATCH)) * 2.0**-20)
    assert (values[32] == 0).all()


@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_the_usual_size_are_stored_as_ever(name: str) -> None:
    """No lift: the second number of the form is the bits alone, and scales are what they were before there was one."""
    stored = FORMATS[name](BATCH * 0.1).tensors()
    assert stored["form"].tolist()[1] <= 8
    assert stored["scales"].float().min() >= SMALLEST


def test_an_old_form_is_read_as_it_was() -> None:
    codes = torch.tensor([[0, 255, 128, 1]], dtype=torch.uint8)
    old = {"codes": codes, "form": torch.tensor([4, 8], dtype=torch.int32), "scales": torch.tensor([[2.0**-15]], dtype=torch.float16)}
    assert torch.equal(Packed(old, 1, 4).matrix(), (codes.float() - 128) * 2.0**-15)


def test_a_network_with_small_weights_is_rounded_as_well(tmp_path: Path) -> None:
    """Values divided and the layer behind them multiplied: the same answers, and the same error of rounding."""
    errors: dict[float, dict[str, float]] = {}
    for factor in (1.0, 10000.0):
        folder, checkpoint = tmp_path / str(factor), checkpoint_of("bert")
        with torch.no_grad():
            for layer in layers_of(checkpoint.torch_network):
                layer.value.weight /= factor
                layer.value.bias /= factor
                layer.out.weight *= factor
        save(checkpoint, folder / "source")
        features = features_of(load(folder / "source"), "bert")
        was = open_runtime(folder / "source").logits(features)
        errors[factor] = {}
        for name, dials in (("rtn", {"bits": 8}), ("gptq", {"bits": 8}), ("awq", {"bits": 8}), ("llm_int8", {}), ("codebook", {})):
            run_step(name, get_method(name).config(**dials), folder / "source", folder / name, inputs_of("bert", folder / f"work-{name}", 16))
            now = open_runtime(folder / name).logits(features)
            errors[factor][name] = max(float(np.abs(a - b).max()) for a, b in zip(was, now, strict=True)) / max(float(np.abs(a).max()) for a in was)
    for name, error in errors[1.0].items():
        assert errors[10000.0][name] < 1.5 * error + 1e-3, name
    assert any(module.lift for module in load(tmp_path / "10000.0" / "rtn").torch_network.modules() if isinstance(module, PackedLinear))
