"""Codes multiplied as they are, against the matrix that they stand for in floats of 64 bits; what is unpacked all the same; and codes that are in memory once."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recompress.measure.request import Request, ask
from recompress.measure.writing import MODULE
from recompress.methods.registry import get_method
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.packed import Packed, PackedEmbedding, PackedLinear, Quantized, Vectors, laid, packed_linear, packed_linears
from recompress.models.packed.scales import held_near
from recompress.models.packed.steps import values
from recompress.models.packed.tables import looked_up
from recompress.runtimes import open_runtime, runtime_of
from tests.six import checkpoint_of, features_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
EPSILON = torch.finfo(torch.float32).eps


def steps_of(bits: int, rows: int, groups: int, size: int, seed: int, *, zeros: bool = True, columns: bool = False, small: bool = False) -> Quantized:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, groups * size), generator=draw).to(torch.uint8)
    scales = held_near((torch.rand((rows, groups), generator=draw) + 0.1) * (2.0**-30 if small else 0.01))
    factors = (torch.rand(groups * size, generator=draw) + 0.5).half().float() if columns else None
    return Quantized(codes, bits, scales, torch.randint(0, 1 << bits, (rows, groups), generator=draw) if zeros else None, columns=factors)


def apart(matrix: Quantized, given_rows: torch.Tensor, outputs: torch.Tensor) -> float:
    """The largest error, in units of what rounding each product of an input and a code once would cost at most, summed over a row."""
    rows, groups = matrix.scales.shape
    zeros = torch.full((rows, groups), 1 << (matrix.bits - 1)) if matrix.zeros is None else matrix.zeros
    codes = matrix.codes.double().view(rows, groups, -1)
    factors = 1 if matrix.columns is None else matrix.columns.double()
    weight = ((codes - zeros.double()[:, :, None]) * matrix.scales.double()[:, :, None]).flatten(1) * factors
    most = (matrix.scales.double()[:, :, None] * (1 << matrix.bits)).expand_as(codes).flatten(1) * factors
    inputs = given_rows.double()
    return float(((outputs.double() - inputs @ weight.T).abs() / (EPSILON * inputs.abs() @ most.T)).max())


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(1, 8),
    rows=st.integers(1, 37),
    groups=st.integers(1, 4),
    size=st.integers(1, 19),
    tokens=st.integers(1, 40),
    block=st.sampled_from([1, 64, 500, 1 << 20]),
    part=st.sampled_from([1, 30, 200, 1 << 19]),
    kinds=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 999),
)
def test_codes_are_multiplied_as_the_matrix_that_they_stand_for(
    bits: int, rows: int, groups: int, size: int, tokens: int, block: int, part: int, kinds: tuple[bool, bool, bool], seed: int
) -> None:
    """Odd shapes, groups of any size, zeros or none, factors of columns, scales far below 16 bits; one block or many; few tokens, and many."""
    matrix = steps_of(bits, rows, groups, size, seed, zeros=kinds[0], columns=kinds[1], small=kinds[2])
    x = torch.randn((tokens, groups * size), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laid, "BLOCK", block)
        patch.setattr(laid, "PART", part)
        packed = packed_linear(matrix, nn.Linear(groups * size, rows, bias=False))
        assert packed.is_laid_out
        for few in (0, 100):
            patch.setattr(laid, "FEW", {True: few, False: few})
            outputs = laid.product(packed.as_laid(), x)
            assert outputs.shape == (tokens, rows)
            assert apart(matrix, x, outputs) < 4
        assert len(packed.as_laid().blocks) == -(-rows // max(2, block // (groups * size) // 2 * 2))
        assert torch.equal(laid.matrix_of(packed.as_laid()), packed.weight)


def test_inputs_are_not_rounded_to_fewer_bits() -> None:
    """Two inputs that 16 bits cannot tell apart, and a weight on which they differ."""
    matrix = steps_of(4, 64, 2, 32, 0)
    packed = packed_linear(matrix, nn.Linear(64, 64, bias=False))
    one = torch.ones(1, 64)
    other = one.clone()
    other[0, 5] += 2.0**-12
    difference = packed(other) - packed(one)
    torch.testing.assert_close(difference[0], packed.weight[:, 5] * 2.0**-12, rtol=0, atol=2e-6)
    assert float(difference.abs().max()) > 1e-5


@pytest.mark.parametrize("tokens", [1, 5, 33])
@pytest.mark.parametrize("kind", ["steps", "8 bits", "levels", "row levels", "vectors"])
def test_every_format_answers_as_its_matrix(kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bias, in two dimensions of tokens; what is unpacked is unpacked in parts."""
    monkeypatch.setattr("recompress.models.packed.modules.CHUNK", 100)
    draw = torch.Generator().manual_seed(0)
    steps = steps_of(8 if kind == "8 bits" else 4, 23, 3, 16, 1)
    made: Any = {
        "levels": steps._replace(zeros=None, levels=torch.randn(1, 16, generator=draw).half().float()),
        "row levels": steps._replace(zeros=None, levels=torch.randn(23, 16, generator=draw).half().float()),
        "vectors": Vectors(torch.randint(0, 256, (23, 12, 2), generator=draw).to(torch.uint8), 8, torch.randn(2, 256, 4, generator=draw), torch.ones(23, 1)),
    }.get(kind, steps)
    packed = packed_linear(made, nn.Linear(48, 23))
    assert packed.is_laid_out == (kind in ("steps", "8 bits"))
    x = torch.randn((2, tokens, 48), generator=draw)
    expected = (x.double() @ packed.weight.double().T + packed.bias.double()).float()
    torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), expected, rtol=1e-4, atol=1e-5)
    assert packed(x[:, :0]).shape == (2, 0, 23)


def test_what_a_gradient_or_another_type_asks_for_is_unpacked() -> None:
    packed = packed_linear(steps_of(4, 6, 2, 8, 0), nn.Linear(16, 6))
    x = torch.randn(3, 16, requires_grad=True)
    packed(x).sum().backward()
    torch.testing.assert_close(x.grad, packed.weight.sum(0).expand(3, -1))
    assert packed.bias.grad is not None
    assert packed.laid is None
    torch.testing.assert_close(packed(x.detach().double()), x.detach().double() @ packed.weight.double().T + packed.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(x.detach()).dtype == torch.bfloat16


def test_other_codes_are_laid_out_anew() -> None:
    first, second = (packed_linear(steps_of(4, 6, 2, 8, seed), nn.Linear(16, 6, bias=False)) for seed in (0, 1))
    x = torch.randn(1, 16)
    expected = second(x)
    assert not torch.allclose(first(x), expected)
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), expected)


def test_where_torch_does_not_sum_rows_rightly_codes_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_linear(steps_of(4, 6, 2, 8, 0), nn.Linear(16, 6, bias=False))
    x = torch.randn(4, 16)
    fast = packed(x)

    def fails(*_: Any) -> torch.Tensor:
        raise RuntimeError("no such engine")

    for broken in (fails, lambda *_: torch.zeros(1, 4)):
        with monkeypatch.context() as patch:
            patch.setattr(laid, "_operator", lambda broken=broken, **_: broken)
            laid.sums_rows.cache_clear()
            assert not packed.is_laid_out
            torch.testing.assert_close(packed(x), fast)
    laid.sums_rows.cache_clear()
    assert packed.is_laid_out


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 9), rows=st.integers(1, 5), places=st.integers(1, 7), dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]))
def test_entries_of_a_table_are_those_that_are_named(width: int, rows: int, places: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(rows)
    table = torch.randint(0, 255, (256, width + 1), generator=draw).to(dtype)[:, 1:]
    numbers = torch.randint(0, 256, (rows, places), generator=draw).to(torch.uint8)
    assert torch.equal(looked_up(table, numbers), table[numbers.long()].flatten(1))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_of_a_byte_are_those_of_its_codes(bits: int) -> None:
    """Where columns end within a byte, too."""
    for columns in range(1, 19):
        plain = steps_of(bits, 3, 1, columns, 0)
        levels = torch.randn(1, 1 << bits, generator=torch.Generator().manual_seed(0)).half().float()
        tensors = plain._replace(zeros=None, levels=levels).tensors()
        expected = levels[0][plain.codes.long()] * plain.scales
        assert torch.equal(values(tensors, slice(None), columns, bits, 0), expected)


@pytest.fixture(scope="module", params=["llama", "bert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose output layer is tied to its embeddings, and an encoder."""
    place, method = tmp_path_factory.mktemp(request.param), get_method("rtn")
    checkpoint = method.run(checkpoint_of(request.param), method.config(bits=4, group_size=16, embeddings=True), inputs_of(request.param, place))
    save(replace(checkpoint, info=replace(checkpoint.info, runtime="packed", steps=("rtn",))), place / request.param)
    return place / request.param


def bytes_of(checkpoint: Checkpoint) -> int:
    """Of all that its packed modules hold, each memory once."""
    found = {}
    for module in checkpoint.torch_network.modules():
        if isinstance(module, Packed):
            held = [*module.buffers(recurse=False), *(() if module.laid is None else (*module.laid.blocks, *module.laid.scales))]
            found.update({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held if tensor.numel()})
    return sum(found.values())


def test_who_answers_holds_codes_once_and_answers_the_same(folder: Path, tmp_path: Path) -> None:
    usual, answering = load(folder), load(folder, answering=True)
    features = features_of(usual, folder.name)
    expected = runtime_of(usual).logits(features)
    stored = sum(tensor.numel() * tensor.element_size() for name, tensor in usual.torch_network.state_dict().items() if "codes" in name)
    for runtime in (runtime_of(answering), open_runtime(folder)):
        assert all((one == other).all() for one, other in zip(runtime.logits(features), expected, strict=True))
    assert bytes_of(usual) - bytes_of(answering) > 0.7 * sum(linear.codes.numel() for linear in linears_alone(usual)) > 0.3 * stored
    for name, linear in packed_linears(answering.torch_network).items():
        assert linear.settled
        assert torch.equal(linear.weight, packed_linears(usual.torch_network)[name].weight)
        assert torch.equal(linear.matrix(torch.tensor([3, 0])), linear.weight[[3, 0]])
    with pytest.raises(RuntimeError, match="load the model anew"):
        save(answering, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def linears_alone(checkpoint: Checkpoint) -> list[PackedLinear]:
    """Those whose codes no embedding shares."""
    tables = {module.codes.data_ptr() for module in checkpoint.torch_network.modules() if isinstance(module, PackedEmbedding)}
    return [linear for linear in packed_linears(checkpoint.torch_network).values() if linear.codes.data_ptr() not in tables]


def test_codes_that_are_read_leave_nothing_behind(folder: Path) -> None:
    """After loading, no tensor with stored codes of a layer is anywhere in memory."""
    shapes = {tuple(linear.codes.shape) for linear in linears_alone(load(folder))}
    gc.collect()
    answering = load(folder, answering=True)
    gc.collect()
    kept = {tuple(module.codes.shape) for module in answering.torch_network.modules() if isinstance(module, PackedEmbedding)}
    left = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.dtype == torch.uint8 and tuple(thing.shape) in shapes - kept]
    assert not left


@pytest.mark.long
def test_a_process_that_writes_takes_less_than_two_fifths_of_the_floats_memory(tmp_path: Path) -> None:
    """Beyond what a process takes whose model is nearly nothing; a decoder of 80 million numbers, its peak at loading included."""
    shape = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 9}
    for name, changes in (("nothing", {}), ("floats", shape)):
        save(checkpoint_of("llama", **changes), tmp_path / name)
    rtn = get_method("rtn")
    packed = rtn.run(load(tmp_path / "floats"), rtn.config(bits=4, group_size=32, embeddings=True), inputs_of("llama", tmp_path / "work"))
    save(replace(packed, info=replace(packed.info, runtime="packed", steps=("rtn",))), tmp_path / "packed")
    peaks = {}
    for name in ("nothing", "floats", "packed"):
        request = Request(directories=(tmp_path / name,), features=(({"input_ids": [5] * 30},),), threads=1, rounds=1, batch_size=1, batches=1)
        peaks[name] = ask(MODULE, request, tmp_path / f"asked-{name}")[0]["peak"]
    assert peaks["floats"] - peaks["nothing"] > 4 * 70e6
    assert peaks["packed"] - peaks["nothing"] < 0.4 * (peaks["floats"] - peaks["nothing"])
