"""ONNX for GenAI with packed weights: the codes of ``rtn``, ``gptq``, ``awq``, ``signround``, ``qat`` and ``mixed_precision`` in a graph with a cache, none of them rounded again.

    y[o] = sum_b scale[o, b] * sum_{i in b} (code[o, i] - zero[o, b]) * x[i]         b: a block of columns with one scale

Codes, scales and zeros are those of the step before, in blocks of a power of two of columns, 16 at least; what ``awq`` multiplies inputs with is multiplied before the
product. Packed embeddings are looked up in their codes.
Source: ONNX Runtime GenAI; ONNX Runtime's contrib operators GroupQueryAttention, MatMulNBits and GatherBlockQuantized (com.microsoft, version 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recompress.errors import InputError
from recompress.methods.quantization.genai_file import WRITES, claims_of_folder, matrices, written
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.checkpoint import Checkpoint
from recompress.models.onnx_graph import read_graph
from recompress.models.packed import Packed
from recompress.models.surgery import weight_of
from recompress.runtimes.blocks import BLOCKS
from recompress.runtimes.genai.held import held_in
from recompress.runtimes.nbits import packed_blocks
from recompress.settings.base import Settings


class OnnxGenaiNbits(Settings):
    """How codes are multiplied."""

    accuracy_level: Literal[1, 4] = 4
    """What inputs are multiplied as: 4, rounded to 8 bits, block by block; 1, as floats, with the packed network's answers, but slower (8-bit codes by far)."""


def check_steps(config: OnnxGenaiNbits, steps: Sequence[tuple[str, Settings]]) -> None:
    """Raises ``InputError`` when the step before is known to leave groups that are no blocks."""
    size = getattr(steps[-1][1], "group_size", None) if steps else None
    if size is not None and size % BLOCKS[0]:
        raise InputError(f"onnx_genai_nbits cannot take groups of {size} columns, which ONNX Runtime has no blocks for; choose a group_size of 16, 32, 64 …")


def prove(before: Checkpoint, after: Checkpoint, config: OnnxGenaiNbits, inputs: Inputs) -> list[Claim]:
    """Every packed matrix as it was packed, number for number, and the rest in floats as it was; and what is claimed of every folder."""
    assert isinstance(after.network, Path)
    network, graph = before.torch_network, read_graph(after.network)
    held, blocks, kinds, other = held_in(graph), packed_blocks(network), {}, 0
    for name, module in matrices(network):
        packed = isinstance(module, Packed)
        weight = (module.matrix() if packed else weight_of(module)).numpy()
        kinds[f"{name}.weight"] = (f"int{blocks[name].bits}", blocks[name].stored_bytes) if packed else ("fp32", 4 * weight.size)
        other += int((weight != held[f"{name}.weight"].numbers).sum()) if np.shape(weight) == held[f"{name}.weight"].numbers.shape else weight.size
    claim = Claim("weights that are not those of the packed network, number for number", 0, other)
    return [claim, *claims_of_folder(before, after, graph, held, kinds, config.accuracy_level, inputs)]


WHY = "its weights lie on no even steps, which is all that ONNX Runtime multiplies"


@method(
    "onnx_genai_nbits",
    OnnxGenaiNbits,
    prove=prove,
    takes="packed",
    **WRITES,
    shrinks="what has to be installed: no torch",
    speeds_up="generating, on CPUs",
    not_after={"codebook": WHY, "vector": WHY, "llm_int8": "it keeps columns in 16 bits, which ONNX Runtime has no blocks for"},
    check_steps=check_steps,
)
def write_packed(checkpoint: Checkpoint, config: OnnxGenaiNbits, inputs: Inputs) -> Checkpoint:
    """Packed weights as a graph with a cache of keys and values, with the very codes of the step before; runs on ONNX Runtime GenAI."""
    blocks = packed_blocks(checkpoint.torch_network)

    def coding(name: str, module: Any) -> Any:
        return blocks.get(name)

    return written(checkpoint, inputs, coding, config.accuracy_level, config.model_dump())
