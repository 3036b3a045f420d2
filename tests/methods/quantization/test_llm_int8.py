"""Outlier columns against loops, products against whole numbers, on all six architectures, with the bytes counted on disk."""

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
from safetensors.torch import load_file, save_file

from recompress.errors import InputError, IntegrityError
from recompress.methods.calibration import calibration_features, watch
from recompress.methods.quantization import llm_int8
from recompress.methods.quantization.llm_int8 import LlmInt8
from recompress.methods.runner import StepReport, run_step
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import load, save
from recompress.models.packed import WithOutliers, packed_linear
from recompress.models.packed.outliers import multiplies_integers, products, whole_product
from tests.six import checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
quantize_matrix = jaxtyped(typechecker=beartype)(llm_int8.quantize_matrix)


def by_loops(weight: torch.Tensor, bias: torch.Tensor, rows: torch.Tensor, places: list[int]) -> torch.Tensor:
    """The paper's eq. 8, number by number, with Python's own whole numbers."""
    inner = [i for i in range(weight.shape[1]) if i not in places]
    outputs = torch.empty(len(rows), len(weight))
    for o, row in enumerate(weight):
        scale = max((abs(float(row[i])) for i in inner), default=0.0) / 127
        held = torch.tensor(scale).clamp_min(2**-14).half()
        scale = float(held if float(held) >= scale else torch.nextafter(held, torch.tensor(torch.inf, dtype=torch.float16)))
        codes = [round(float(row[i] / scale)) for i in inner]
        for n, x in enumerate(rows):
            step = max((abs(float(x[i])) for i in inner), default=0.0) / 127
            total = sum(round(float(x[i]) / step) * code for i, code in zip(inner, codes, strict=True)) if step else 0
            outputs[n, o] = step * scale * total + sum(float(x[i]) * float(row[i].half()) for i in places) + float(bias[o])
    return outputs


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), outliers=st.integers(0, 7))
def test_a_layer_is_the_loop_of_the_paper(seed: int, outliers: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(7, 3)
    weight, rows = torch.randn(3, 7, generator=draw), torch.randn(4, 7, generator=draw)
    rows[0] = 0
    places = torch.randperm(7, generator=draw)[:outliers].sort().values
    packed = packed_linear(quantize_matrix(weight, places), linear)
    torch.testing.assert_close(packed(rows.view(2, 2, 7)).view(4, 3), by_loops(weight, linear.bias.detach(), rows, places.tolist()), rtol=1e-4, atol=1e-5)
    inner = [i for i in range(7) if i not in places.tolist()]
    assert torch.equal(packed.weight[:, places], weight[:, places].half().float())
    assert ((packed.weight - weight)[:, inner].abs() <= 0.5005 * packed.scales.float()).all()
    assert torch.equal(packed.matrix(torch.tensor([2, 0])), packed.weight[[2, 0]])


def test_sums_are_those_of_whole_numbers() -> None:
    """Also where a 32-bit float over all columns would round."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randint(-127, 128, (5, 5000), generator=draw) for _ in range(2))
    left[0], right[0] = 127, 127
    right[0, -1] = 126
    expected = left @ right.T
    assert int(expected[0, 0]) == 4999 * 127 * 127 + 127 * 126
    assert torch.equal(whole_product(left.float(), right.float()), expected.float())


@pytest.mark.skipif(not multiplies_integers("cpu"), reason="the processor, or torch, does not multiply 8-bit integers into 32 bits")
def test_the_processors_products_are_the_sums_of_whole_numbers() -> None:
    """Every width from one column on, contiguous or not, and the largest sums that there are."""
    draw = torch.Generator().manual_seed(0)
    for tokens, rows in ((1, 1), (1, 9), (7, 1), (5, 33), (40, 17)):
        for columns in (*range(1, 40), 127, 384, 3000):
            left, right = (torch.randint(-127, 128, (count, columns + 1), generator=draw)[:, 1:] for count in (tokens, rows))
            right[0] = 127
            codes = (right + 128).to(torch.uint8)
            assert torch.equal(products(left.float(), codes), (left @ right.T).float()), (tokens, rows, columns)


def test_outliers_are_those_above_the_threshold_or_the_largest() -> None:
    largest = torch.tensor([1.0, 6.0, 5.9, 30.0, 6.0, 0.0])
    assert llm_int8.outliers_of(largest, LlmInt8()).tolist() == [1, 3, 4]
    assert llm_int8.outliers_of(largest, LlmInt8(share=0.34)).tolist() == [1, 3]
    assert llm_int8.outliers_of(largest, LlmInt8(share=0.0)).tolist() == []


def test_outlier_columns_save_what_large_inputs_would_cost() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, rows, linear = torch.randn(16, 64, generator=draw), torch.randn(50, 64, generator=draw), torch.nn.Linear(64, 16, bias=False)
    rows[:, [3, 40]] *= 60
    expected = rows @ weight.T
    errors = [
        float((packed_linear(quantize_matrix(weight, torch.tensor(places, dtype=torch.long)), linear)(rows) - expected).square().mean())
        for places in ([], [3], [3, 40])
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.01 * errors[0]


def step(family: str, place: Path, name: str, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        save(checkpoint_of(family), place / "source")
    return run_step("llm_int8", LlmInt8(**dials), place / "source", place / name, inputs_of(family, place / f"work-{name}", 24))


@pytest.mark.parametrize("family", each())
def test_on_every_architecture(family: str, tmp_path: Path) -> None:
    """With a threshold that some inputs reach: the first layer's outliers are those that its calibrated inputs say."""
    report = step(family, tmp_path, "made", threshold=2.0, embeddings=True)
    assert report.claims[0]["measured"] == sum(1 for _ in encoder_linears(checkpoint_of(family).torch_network))
    stored = load_file(tmp_path / "made" / "model.safetensors")
    for path, linear in encoder_linears(checkpoint_of(family).torch_network):
        rows, columns = shape_of(linear)
        assert stored[f"{path}.codes"].shape == (rows, columns - len(stored[f"{path}.places"]))
        assert f"{path}.weight" not in stored
    assert report.parameters == report.parameters_before
    assert report.size_bytes < 0.6 * report.size_bytes_before
    dense = load(tmp_path / "source")
    path, linear = next(iter(encoder_linears(dense.torch_network)))
    largest = torch.zeros(shape_of(linear)[1])

    def see(came: torch.Tensor, _: torch.Tensor, text: torch.Tensor) -> None:
        largest.copy_(torch.maximum(largest, came[text].abs().amax(0)))

    watch(dense.torch_network, calibration_features(dense, inputs_of(family, tmp_path / "x", 24), 128), {linear: see})
    expected = [i for i in range(len(largest)) if largest[i] >= 2.0]
    assert stored[f"{path}.places"].tolist() == expected
    assert any(len(stored[f"{name}.places"]) > 0 for name, _ in encoder_linears(dense.torch_network))
    step(family, tmp_path, "again", threshold=2.0, embeddings=True)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "made" / "model.safetensors").read_bytes()


def test_a_share_is_a_share_and_no_outliers_are_fine(tmp_path: Path) -> None:
    for share, count in ((0.25, 8), (0.0, 0)):
        step("llama", tmp_path, f"{count}", share=share)
        stored = load_file(tmp_path / f"{count}" / "model.safetensors")
        assert stored["model.layers.0.self_attn.q_proj.places"].shape == (count,)


def test_what_is_refused(tmp_path: Path) -> None:
    for dials in ({"share": 1.0}, {"threshold": 0.0}, {"threshold": float("nan")}):
        with pytest.raises(ValidationError):
            LlmInt8(**dials)
    broken = checkpoint_of("bert")
    next(encoder_linears(broken.torch_network))[1].weight.data[0, 0] = 1e6
    save(broken, tmp_path / "source")
    with pytest.raises(InputError, match="16-bit scales"):
        step("bert", tmp_path, "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("places", [[5, 3], [3, 3], [3, 32], [-1, 3]])
def test_outliers_that_cannot_be_are_refused(places: list[int], tmp_path: Path) -> None:
    step("gpt2", tmp_path, "made", share=0.07)
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.places"] = torch.tensor(places, dtype=torch.int32)
    save_file(tensors, tmp_path / "made" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="do not fit each other"):
        load(tmp_path / "made")


def test_all_columns_may_be_outliers() -> None:
    weight = torch.randn(3, 4)
    quantized = quantize_matrix(weight, torch.arange(4))
    assert isinstance(quantized, WithOutliers)
    assert quantized.shape == (3, 4)
    rows = torch.randn(2, 4)
    torch.testing.assert_close(packed_linear(quantized, torch.nn.Linear(4, 3, bias=False))(rows), rows @ weight.half().float().T)
