"""ONNX for GenAI: a decoder as a graph with a cache of keys and values, which ONNX Runtime GenAI serves, its matrices as floats or rounded to the nearest in blocks.

    int4, int8:  W ~ scale * (code - zero)        symmetric: scale = 2 max|W| / (2^bits - 1), zero = 2^(bits - 1)
                                                  else:      scale = (max W - min W) / (2^bits - 1), zero = round(-min W / scale), both with 0 between them
    fp32:        W

With ``scales: mse`` each block in int4 has, of these steps and some dozen others, those whose values lie nearest to its weights (``recompress.methods.quantization.grid``).
A block is ``block_size`` columns of a row, or the largest power of two below that divides its columns; a matrix whose rows are no whole blocks of 16 is stored as floats.
Codes are multiplied as they lie there: with ``accuracy_level: 4`` inputs are rounded to 8 bits, each token and each block by itself. Smaller vocabularies, layers with heads
and neurons of their own numbers, shared layers and factors of matrices are all written.
Source: ONNX Runtime GenAI; ONNX Runtime's contrib operators GroupQueryAttention, MatMulNBits and GatherBlockQuantized (com.microsoft, version 1); the grid: Jacob et al. 2018,
arXiv:1712.05877, eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import nn

from recompress.methods.quantization.closeness import SEARCHED
from recompress.methods.quantization.genai_file import WRITES, claims_of_folder, matrices, written
from recompress.methods.quantization.grid import FewBits, refuse, rounded
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.architecture import is_linear, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.onnx_graph import read_graph
from recompress.models.packed import Packed
from recompress.models.packed.modules import unpacked_matrix
from recompress.models.surgery import weight_of
from recompress.runtimes.blocks import BLOCKS, Blocks, blocks_of
from recompress.runtimes.genai.held import held_in
from recompress.settings.base import Settings

Kind = Literal["fp32", "int8", "int4"]
BITS = {"int4": 4, "int8": 8}
FURTHER = 2.0**-10
"""Share of a step by which a code may lie further away: scales have 11 digits, and are rounded up."""


class OnnxGenai(Settings):
    """How weights are stored, and how codes are multiplied."""

    weights: Literal["fp32", "int4"] = "int4"
    """What the matrices of the layers are stored as."""
    embeddings: Kind | None = None
    """What the token embeddings and the output layer are stored as; ``int8`` beside ``int4``, and otherwise the same as the layers, when left out."""
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Columns with one scale, which has 32 bits: of 32 columns, a weight in int4 takes 5 bits, of 128 it takes 4.25."""
    symmetric: bool = True
    """Steps that lie evenly around zero, so that no zero points need be stored; costs quality where weights do not lie evenly."""
    scales: Literal["minmax", "mse"] = "mse"
    """Steps of int4 from the largest and smallest weight of each block, or those of a few dozen that lose least of its squares: nearer at the same bytes."""
    accuracy_level: Literal[1, 4] = 4
    """What inputs are multiplied as: 4, rounded to 8 bits, block by block; 1, as floats, but slower (8-bit codes by far)."""

    @property
    def outer(self) -> Kind:
        return self.embeddings or ("int8" if self.weights == "int4" else self.weights)


def block_size_for(columns: int, asked: int) -> int | None:
    """The largest block of at most ``asked`` columns that divides a row; ``None`` where none does."""
    return max((size for size in BLOCKS if size <= asked and columns % size == 0), default=None)


def kind_of(network: Any, module: Any, config: OnnxGenai) -> Kind:
    """What the matrix of a module is to be stored as."""
    columns = shape_of(module)[1] if is_linear(module) else module.weight.shape[1]
    outer = isinstance(module, nn.Embedding) or module is network.get_output_embeddings()
    asked: Kind = config.outer if outer else config.weights
    return asked if asked == "fp32" or block_size_for(columns, config.block_size) else "fp32"


def grid_for(columns: int, kind: Kind, config: OnnxGenai) -> FewBits:
    """The steps of a matrix. In 8 bits there is nothing to be found beside those of the whole range."""
    scales = config.scales if kind == "int4" else "minmax"
    return FewBits(bits=BITS[kind], group_size=block_size_for(columns, config.block_size), symmetric=config.symmetric, scales=scales)  # type: ignore[arg-type]


def coded(name: str, weight: Any, kind: Kind, config: OnnxGenai) -> Blocks:
    """A matrix in blocks, each weight on its nearest step."""
    quantized = rounded(weight.detach().float(), grid_for(weight.shape[1], kind, config))
    return blocks_of(name, Packed(quantized.tensors(), *quantized.shape))


def bytes_for(rows: int, columns: int, kind: Kind, config: OnnxGenai) -> int:
    """Bytes of a matrix: codes, a scale in 32 bits for each block, and zero points of as many bits as codes have, whole bytes to a row."""
    size = block_size_for(columns, config.block_size)
    if kind == "fp32" or size is None:
        return 4 * rows * columns
    bits, blocks = BITS[kind], columns // size
    return rows * (columns * bits // 8 + 4 * blocks + (0 if config.symmetric else -(-blocks * bits // 8)))


def beyond(weight: Float[np.ndarray, "rows columns"], stored: Float[np.ndarray, "rows columns"], kind: Kind, config: OnnxGenai) -> int:
    """How many weights are stored further from what they were than half a step of their block."""
    size = block_size_for(weight.shape[1], config.block_size)
    if kind == "fp32" or size is None:
        return int((weight != stored).sum())
    blocks = weight.reshape(len(weight), -1, size)
    span = 2 * np.abs(blocks).max(axis=-1) if config.symmetric else blocks.max(axis=-1).clip(min=0) - blocks.min(axis=-1).clip(max=0)
    steps = span[..., None] / ((1 << BITS[kind]) - 1)
    error = np.abs(weight - stored).reshape(blocks.shape)
    return int((error > (0.5 + 16 * FURTHER) * steps + np.abs(weight).max() * 2.0**-20).sum())


def prove(before: Checkpoint, after: Checkpoint, config: OnnxGenai, inputs: Inputs) -> list[Claim]:
    """Every weight near what it was, stored as was asked; and what is claimed of every folder."""
    assert isinstance(after.network, Path)
    network, graph = before.torch_network, read_graph(after.network)
    held, kinds, far, ours, theirs = held_in(graph), {}, 0, 0.0, 0.0
    for name, module in matrices(network):
        kind, weight, stored = kind_of(network, module, config), weight_of(module), held[f"{name}.weight"].numbers
        kinds[f"{name}.weight"] = (kind, bytes_for(len(weight), weight.shape[1], kind, config))
        if kind == "int4" and config.scales == "mse":
            usual = rounded(weight.float(), grid_for(weight.shape[1], kind, config.model_copy(update={"scales": "minmax"})))
            ours += squares(weight.numpy() - stored)
            theirs += squares((weight - unpacked_matrix(usual)).numpy())
        else:
            far += beyond(weight.numpy(), stored, kind, config)
    claims = [Claim("weights further away than their nearest step", 0, far)]
    if config.weights == "int4" and config.scales == "mse":
        claims.append(Claim(f"squared error of weights in int4, below {SEARCHED:.1%} of that with scales: minmax", SEARCHED * theirs, ours, bound="at most"))
    return [*claims, *claims_of_folder(before, after, graph, held, kinds, config.accuracy_level, inputs)]


def squares(error: Float[np.ndarray, "rows columns"]) -> float:
    return float(np.square(error, dtype=np.float64).sum())


@method(
    "onnx_genai",
    OnnxGenai,
    prove=prove,
    **WRITES,
    shrinks="bytes, to about 5/16 (int4, blocks of 32) or 4.25/16 (of 128) of 16 bits; and what has to be installed: no torch",
    speeds_up="generating, on CPUs",
)
def write_decoder(checkpoint: Checkpoint, config: OnnxGenai, inputs: Inputs) -> Checkpoint:
    """A graph with a cache of keys and values, in int4 or in floats; runs on ONNX Runtime GenAI."""
    network = checkpoint.torch_network
    if config.weights != "fp32":
        refuse(network, FewBits())

    def coding(name: str, module: Any) -> Blocks | None:
        kind = kind_of(network, module, config)
        return None if kind == "fp32" else coded(name, weight_of(module), kind, config)

    told: Mapping[str, Any] = config.model_dump()
    return written(checkpoint, inputs, coding, config.accuracy_level, told)
