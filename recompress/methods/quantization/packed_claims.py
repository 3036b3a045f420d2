"""What is claimed of every packed model, and the bytes that its form takes: codes, scales and zeros of each matrix, beside all tensors that stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recompress.methods.quantization.grid import FewBits, outside
from recompress.methods.registry import Claim
from recompress.models.architecture import encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.factored import token_table
from recompress.models.files import distinct_tensors
from recompress.models.packed import PackedEmbedding, PackedLinear
from recompress.models.surgery import weight_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORM_BYTES = 8


def prove_packed(before: Checkpoint, after: Checkpoint, config: FewBits, extra: Callable[[int, int], int] | None = None) -> list[Claim]:
    """All linear layers of the layers packed, in so many bits, and the bytes that follow. ``extra`` gives the bytes of what else a matrix stores."""
    old, new = before.torch_network, after.torch_network
    pairs = [(shape_of(linear), new.get_submodule(name)) for name, linear in encoder_linears(old)]
    packed = [module for _, module in pairs if isinstance(module, PackedLinear)]
    numbers = sum(rows * columns for (rows, columns), _ in pairs)
    expected = tensor_bytes(old)
    for (rows, columns), _ in pairs:
        expected += matrix_bytes(rows, columns, config) - 4 * rows * columns + (extra(rows, columns) if extra else 0)
    expected += bytes_outside(old, config)
    return [
        Claim("linear layers packed", len(pairs), len(packed)),
        Claim("embeddings packed", float(bool(config.embeddings)), float(isinstance(token_table(new), PackedEmbedding))),
        *([Claim("output layer packed", 1, float(isinstance(new.get_output_embeddings(), PackedLinear)))] if config.output else []),
        Claim("bits of a weight", 8 * sum(r * code_bytes(c, config.bits) for (r, c), _ in pairs) / numbers, 8 * sum(m.codes.numel() for m in packed) / numbers),
        Claim("bytes of all tensors", expected, tensor_bytes(new)),
    ]


def zeros_claim(before: Checkpoint, after: Checkpoint) -> Claim:
    """Every weight that was zero, because it was pruned, still is."""
    pairs = [(weight_of(linear) == 0, after.torch_network.get_submodule(name)) for name, linear in encoder_linears(before.torch_network)]
    zeros_left = sum(int((module.weight[zero] == 0).sum()) for zero, module in pairs if isinstance(module, PackedLinear))
    return Claim("zeros that stayed zero", sum(int(zero.sum()) for zero, _ in pairs), zeros_left)


def bytes_outside(network: PreTrainedModel, config: FewBits) -> int:
    """What packing token embeddings and output layer adds to the bytes of all tensors: a negative number, or 0 where the settings do not ask for it."""
    packed = 0
    for _, module, its in outside(network, config):
        rows, columns = map(int, module.weight.shape)
        packed += matrix_bytes(rows, columns, its) - 4 * rows * columns
    return packed


def code_bytes(columns: int, bits: int) -> int:
    return -(-columns * bits // 8)


def matrix_bytes(rows: int, columns: int, config: FewBits) -> int:
    """Codes, scales and zeros of one matrix."""
    groups = columns // (config.group_size or columns)
    return rows * (code_bytes(columns, config.bits) + groups * (2 if config.symmetric else 3)) + FORM_BYTES


def tensor_bytes(network: PreTrainedModel) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct_tensors(network).values())
