"""Packed matrices in ONNX Runtime's blocks: every bit where the operators look for it, against loops and against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from recompress.errors import InputError
from recompress.methods.quantization.codebook import Codebook
from recompress.methods.quantization.grid import FewBits, rounded
from recompress.models.packed import PackedLinear, Quantized, packed_embedding, packed_linear
from recompress.runtimes.blocks import Blocks, block_size_for, blocks_of
from recompress.runtimes.nbits import use_blocks

ROWS = 7
SHAPES = [(32, 16), (96, 48), (64, 32), (128, 128), (512, 512), (32, None), (37, None), (100, None), (300, None)]
"""Columns, and those of a group; none of the last four rows fills its blocks."""
GRIDS = [(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (True, False)]


def packed_matrix(columns: int, group: int | None, bits: int, symmetric: bool, *, widened: bool = False, rows: int = ROWS) -> PackedLinear:
    """Weights whose rows and groups differ in size and place, so that no scale and no zero can stand for another."""
    draw = torch.Generator().manual_seed(columns + bits)
    weight = torch.randn((rows, columns), generator=draw) * torch.linspace(0.2, 3, rows)[:, None] * torch.linspace(0.5, 2, columns) + 0.3
    matrix = rounded(weight, FewBits(bits=bits, group_size=group, symmetric=symmetric))
    if widened:
        matrix = matrix._replace(columns=torch.linspace(0.5, 2, columns))
    return packed_linear(matrix, nn.Linear(columns, rows))


def by_loops(blocks: Blocks) -> np.ndarray[Any, Any]:
    """The operators' definition, one weight at a time."""
    weight = np.zeros((len(blocks.codes), blocks.columns), np.float32)
    for row in range(len(weight)):
        for column in range(blocks.columns):
            block, place = divmod(column, blocks.block_size)
            code = nibble(blocks.codes[row, block], place, blocks.bits)
            zero = 1 << (blocks.bits - 1) if blocks.zeros is None else nibble(blocks.zeros[row], block, blocks.bits)
            weight[row, column] = np.float32(code - zero) * blocks.scales[row, block].numpy()
            weight[row, column] *= 1 if blocks.inputs is None else blocks.inputs[column].numpy()
    return weight


def nibble(stored: torch.Tensor, place: int, bits: int) -> int:
    if bits == 8:
        return int(stored[place])
    return int(stored[place // 2]) >> 4 if place % 2 else int(stored[place // 2]) & 15


def graph_with(module: PackedLinear, level: int) -> onnx.ModelProto:
    """Products with a matrix, and look-ups in it where it fills its blocks; in floats first, and then in blocks."""
    network, blocks = nn.ModuleDict({"matrix": module}), blocks_of("matrix", module)
    nodes = [helper.make_node("Transpose", ["table"], ["turned"]), helper.make_node("MatMul", ["x", "turned"], ["y"])]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", module.columns_count])]
    answered = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", module.rows])]
    if not blocks.padded and blocks.inputs is None:
        nodes.append(helper.make_node("Gather", ["table", "numbers"], ["looked_up"]))
        given.append(helper.make_tensor_value_info("numbers", TensorProto.INT64, ["m"]))
        answered.append(helper.make_tensor_value_info("looked_up", TensorProto.FLOAT, ["m", module.columns_count]))
    graph = helper.make_graph(nodes, "g", given, answered, [numpy_helper.from_array(module.weight.numpy(), "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    use_blocks(model, network, {"matrix": blocks}, level)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, x: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], folding: bool = True) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not folding:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"x": x, "numbers": numbers}
    answers: list[np.ndarray[Any, Any]] = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
    return answers


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize(("bits", "symmetric"), GRIDS)
@pytest.mark.parametrize(("columns", "group"), SHAPES)
def test_blocks_hold_what_was_packed_bit_for_bit(columns: int, group: int | None, bits: int, symmetric: bool, widened: bool) -> None:
    module = packed_matrix(columns, group, bits, symmetric, widened=widened, rows=3)
    blocks = blocks_of("matrix", module)
    np.testing.assert_array_equal(by_loops(blocks), module.weight.numpy())
    assert (blocks.zeros is None) is symmetric
    assert blocks.bits == (8 if bits == 8 else 4)
    assert blocks.codes.shape == (3, -(-columns // blocks.block_size), blocks.block_size * blocks.bits // 8)


@pytest.mark.parametrize("factor", [1e-6, 1e-12])
@pytest.mark.parametrize(("bits", "symmetric"), GRIDS)
def test_small_weights_are_what_they_are(bits: int, symmetric: bool, factor: float) -> None:
    """Their scales are stored as other numbers, with a power of two beside them; one small row is enough for that."""
    draw = torch.Generator().manual_seed(bits)
    weight = torch.randn((3, 64), generator=draw) * torch.tensor([1, factor, 1])[:, None]
    module = packed_linear(rounded(weight, FewBits(bits=bits, group_size=32, symmetric=symmetric)), nn.Linear(64, 3))
    assert module.lift > 0
    np.testing.assert_array_equal(by_loops(blocks_of("matrix", module)), module.weight.numpy())


@pytest.mark.parametrize(("bits", "symmetric"), GRIDS)
@pytest.mark.parametrize(("columns", "group"), SHAPES)
def test_onnx_runtime_multiplies_and_looks_up_what_was_packed(columns: int, group: int | None, bits: int, symmetric: bool) -> None:
    """Nothing folded, too: there the int8 kernel gets stored tensors as they are, or is silently wrong."""
    module = packed_matrix(columns, group, bits, symmetric, widened=columns == 96)
    x = np.random.default_rng(0).standard_normal((5, columns)).astype(np.float32)
    numbers = np.array([6, 0, 3, 3])
    weight = module.weight.numpy()
    exact = x @ weight.T
    for level, near in ((1, 1e-5), (4, 0.02)):
        model = graph_with(module, level)
        for folding in (True, False):
            product, *rows = run(model, x, numbers, folding)
            assert np.abs(product - exact).max() <= near * np.abs(exact).max()
            for row in rows:
                np.testing.assert_array_equal(row, weight[numbers])
    assert len(rows) == (columns % 16 == 0 and columns != 96)


@pytest.mark.parametrize(
    ("columns", "groups", "bits", "size"),
    [(384, 12, 4, 32), (384, 24, 4, 16), (384, 8, 4, 16), (1536, 3, 4, 256), (384, 1, 4, 128), (32, 1, 8, 32), (100, 1, 4, 128), (96, 4, 4, None)],
)
def test_a_block_is_as_long_as_its_group_lets_it_be(columns: int, groups: int, bits: int, size: int | None) -> None:
    assert block_size_for(columns, groups, bits) == size


def test_what_is_no_even_steps_or_has_groups_too_short_is_refused() -> None:
    from recompress.methods.quantization.codebook import _one

    weight = torch.randn(4, 48)
    levels = packed_embedding(_one(weight, torch.ones(48), Codebook(kind="nf4", group_size=16)))
    with pytest.raises(InputError, match="words holds levels of a codebook, and ONNX Runtime multiplies even steps only; pack it with rtn"):
        blocks_of("words", levels)
    short = packed_embedding(rounded(weight, FewBits(bits=4, group_size=8)))
    with pytest.raises(InputError, match="words has groups of 8 columns, and ONNX Runtime multiplies blocks of 16, 32, 64"):
        blocks_of("words", short)


def test_codes_of_all_values_survive() -> None:
    """Each of the 16 codes in both halves of a byte."""
    codes = torch.arange(32, dtype=torch.uint8).remainder(16).repeat(2, 1)
    codes[1] = codes[1].flip(0)
    module = packed_linear(Quantized(codes, 4, torch.ones(2, 2), torch.tensor([[0, 15], [15, 0]])), nn.Linear(32, 2))
    blocks = blocks_of("matrix", module)
    assert blocks.codes[0, 0, :3].tolist() == [0x10, 0x32, 0x54]
    assert blocks.zeros is not None
    assert blocks.zeros.tolist() == [[0xF0], [0x0F]]
