"""The token embeddings of an int8 graph in 4 bits: they are most of a small encoder's bytes, nothing is multiplied by them, and a row is looked up code by code.

    E[token, i] ~ scale[token, b] * (code[token, i] - 8)        code in [0, 15];  b: a block of 64 columns, or of 32 or 16 where 64 do not divide the width

Scales are those of least squared error of each block. The network is exported with what the codes stand for, its products and all other tables are rounded
to 8 bits around the token embeddings, and in what comes of that the look-ups read the codes; an output layer that is tied to them multiplies the same codes.

Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1; ONNX Runtime's contrib operators GatherBlockQuantized and MatMulNBits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recompress.errors import InputError
from recompress.methods.quantization.grid import FewBits, pack_outside
from recompress.methods.quantization.onnx_nbits import left_in_floats, missing, products_in
from recompress.methods.registry import Claim
from recompress.models.factored import token_table
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.models.packed import PackedEmbedding
from recompress.runtimes.nbits import in_floats, packed_blocks, use_blocks, users_of
from recompress.settings.base import Settings

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

Tables = bool | Literal["int4"]
BLOCKS = (64, 32, 16)
"""Columns that share a scale, the first that divide the width: a scale takes 32 bits, half a bit a number in blocks of 64."""
AS_FLOATS = 1
"""A tied output layer computes in floats with what the codes stand for, as it does with tables in 8 bits."""


def check_width(columns: int) -> int:
    """The columns of a block. Raises ``InputError`` for a width that has none."""
    group = next((size for size in BLOCKS if columns % size == 0), None)
    if group is None:
        below = columns - columns % BLOCKS[-1]
        near = f"{below} or {below + BLOCKS[-1]}" if below else str(BLOCKS[-1])
        raise InputError(
            f"embeddings: int4 needs a width that 16 divides, and the token embeddings have {columns} columns; store them in 8 bits (true), or factor them to {near}"
        )
    return group


def check_steps(config: Settings, steps: Sequence[tuple[str, Settings]]) -> None:
    """Raises ``InputError`` for 4 bits where a step before is known to leave token embeddings of a width that has no blocks."""
    ranks = [getattr(settings, "rank", None) for name, settings in steps if name == "factorize_embeddings"]
    if getattr(config, "embeddings", None) == "int4" and ranks and ranks[-1] is not None:
        check_width(ranks[-1])


class TableInFourBits:
    """A network whose token embeddings are packed, and what its graph is told of that."""

    def __init__(self, network: PreTrainedModel) -> None:
        self.packed = copy.deepcopy(network)
        group = check_width(token_table(network).weight.shape[1])
        pack_outside(self.packed, FewBits(bits=4, group_size=group, symmetric=True, embeddings=True, scales="mse"))
        self.blocks = packed_blocks(self.packed)

    @property
    def network(self) -> PreTrainedModel:
        """With what the codes stand for, to be exported."""
        return in_floats(self.packed)

    def kept(self, model: onnx.ModelProto) -> list[str]:
        """The nodes of an exported graph that look up in the token embeddings, or multiply with them, and are not to be rounded to 8 bits."""
        return users_of(model, self.packed, self.blocks)

    def write(self, path: Path) -> None:
        """Let the graph in ``path`` read the codes."""
        model = read_graph(path)
        use_blocks(model, self.packed, self.blocks, AS_FLOATS)
        write_graph(model, path)

    @property
    def saved(self) -> int:
        """Bytes that the codes and their scales take less than 32-bit floats."""
        [module] = [module for module in self.packed.modules() if isinstance(module, PackedEmbedding)]
        return 4 * module.matrix().numel() - sum(blocks.stored_bytes for blocks in self.blocks.values())

    def claims(self, model: onnx.ModelProto) -> Iterator[Claim]:
        """The table is looked up as it was packed, and nothing of it is left in floats."""
        embeddings = [module for module in self.packed.modules() if isinstance(module, PackedEmbedding)]
        yield Claim("token embeddings that are not looked up in 4 bits as they were packed", 0, missing(embeddings, products_in(model)[1]))
        yield Claim("token embeddings that stand there in floats", 0, left_in_floats(model, embeddings))
