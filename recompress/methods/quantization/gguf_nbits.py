"""GGUF with packed weights: the codes of ``rtn``, ``gptq``, ``awq``, ``signround``, ``qat`` and ``mixed_precision`` in the blocks of a file that llama.cpp serves, none of them rounded again.

    Q4_0: W = d * (q - 8)          Q4_1: W = d * q + m          Q8_0: W = d * q

What GPTQ chose by the text that it saw is what the file holds: 2 to 4 bits become Q4_0 where steps lie evenly around zero (``symmetric: true``) and Q4_1 where they do not,
8 bits become Q8_0. Codes are the same, scales too but for the smallest; the lowest weight m of a group is rounded to 16 bits. The factors of ``awq`` go into the norm
before, where they are ``foldable``.
Source: the GGUF specification; llama.cpp, ``ggml-quants.c``; ``recompress.models.gguf.blocks``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from recompress.errors import InputError
from recompress.methods.quantization.gguf_file import WRITES, claims_of_file, matrices, written
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.checkpoint import Checkpoint
from recompress.models.gguf.blocks import blocks_at, check_steps
from recompress.models.gguf.reading import Held, read_tensors
from recompress.models.gguf.tensors import Place, numbers_at, rows_of
from recompress.models.gguf.writing import BLOCK, Coded, as_kind
from recompress.models.packed import Packed, unpack
from recompress.models.packed.scales import lowered
from recompress.settings.base import Settings

SHIFT = 2.0**-7
"""How far a weight may lie from the packed one, in steps of its matrix: 15 steps, rounded to 11 digits."""


class GgufNbits(Settings):
    """What is not packed."""

    rest: Literal["f32", "f16", "q8_0"] = "f16"
    """What matrices are stored as that no step before has packed: token embeddings and output layer, most of all."""


def check_chain(config: GgufNbits, steps: Sequence[tuple[str, Settings]]) -> None:
    """Raises ``InputError`` when the step before is known to leave what no block can say."""
    last = steps[-1][1] if steps else None
    if steps and steps[-1][0] == "awq" and not getattr(last, "foldable", False):
        raise InputError("gguf_nbits cannot take awq's factor for each column, which GGUF has no place for; set foldable: true in awq")
    size = getattr(last, "group_size", None)
    if size is not None and size % BLOCK:
        raise InputError(f"gguf_nbits cannot take groups of {size} columns, GGUF has blocks of {BLOCK}; choose a group_size of {BLOCK}, {2 * BLOCK} …")
    if not getattr(last, "symmetric", True):
        for dial in ("bits", "embeddings", "output"):
            if getattr(last, dial, None) == 8:
                raise InputError(f"gguf_nbits cannot take {dial}: 8 with zero points, which GGUF has no blocks for; set symmetric: true in the step before")


def kind_at(place: Place, config: GgufNbits) -> str:
    """What a matrix is to be stored as: by its bits and zeros where it is packed."""
    if not isinstance(place.module, Packed):
        return config.rest.upper()
    return "Q8_0" if place.module.bits == 8 else "Q4_1" if "zeros" in place.module.tensors else "Q4_0"


def codes_in(stored: np.ndarray, kind: str) -> np.ndarray:
    """The codes of each row of a file's bytes, by the definition of its blocks."""
    head = {"Q4_0": 2, "Q4_1": 4, "Q8_0": 2}[kind]
    size = head + (BLOCK if kind == "Q8_0" else BLOCK // 2)
    blocks = stored.reshape(len(stored), -1, size)[:, :, head:]
    if kind == "Q8_0":
        return (blocks.astype(np.int16) + 128).astype(np.uint8).reshape(len(stored), -1)  # -128 … 127 as 128 … 255, 0 … 127
    return np.concatenate([blocks % 16, blocks // 16], axis=-1).reshape(len(stored), -1)


def prove(before: Checkpoint, after: Checkpoint, config: GgufNbits, inputs: Inputs) -> list[Claim]:
    """Every code as it was packed, and weights that lie where they lay; and what is claimed of every file."""
    assert isinstance(after.network, Path)
    packed = [place for place in matrices(before.torch_network) if isinstance(place.module, Packed)]
    held = read_tensors(after.network)
    return [*_codes(packed, held), *claims_of_file(before, after, held, lambda place: kind_at(place, config), inputs)]


def _codes(packed: Sequence[Place], file: Mapping[str, Held]) -> Iterator[Claim]:
    other = shift = 0.0
    for place in packed:
        matrix, held, order = place.module, file[place.name], rows_of(place)
        ordered = unpack(matrix.tensors["codes"], matrix.bits, matrix.columns_count)
        codes = (ordered if order is None else ordered[order]).numpy()
        lift = 8 - (1 << (matrix.bits - 1)) if held.kind == "Q4_0" else 0
        other += float((codes_in(np.asarray(held.stored), held.kind) != codes + lift).sum())
        step = float(lowered(matrix.tensors["scales"], matrix.lift).max())
        shift = max(shift, float(np.abs(numbers_at(place).numpy() - held.numbers()).max()) / step)
    yield Claim("packed matrices", len(packed), sum(file[place.name].kind.startswith("Q") for place in packed))
    yield Claim("codes that are not those that were packed", 0, other)
    yield Claim("largest shift of a weight, in steps", SHIFT, shift, bound="at most")


WHY = "its weights lie on no even steps, which is all that GGUF's blocks say"


@method(
    "gguf_nbits",
    GgufNbits,
    prove=prove,
    takes="packed",
    **WRITES,
    source="the GGUF specification; llama.cpp, ggml-quants.c",
    shrinks="what has to be installed: no torch",
    speeds_up="generating, on CPUs",
    not_after={
        "codebook": WHY,
        "vector": WHY,
        "llm_int8": "it keeps columns in 16 bits, which GGUF has no place for",
    },
    check_steps=check_chain,
)
def write_packed(checkpoint: Checkpoint, config: GgufNbits, inputs: Inputs) -> Checkpoint:
    """Packed weights as a GGUF file with the very codes of the step before; runs on llama.cpp."""
    every = matrices(checkpoint.torch_network)
    packed = [place for place in every if isinstance(place.module, Packed)]
    for place in packed:
        check_steps(place.name, place.module, folded=place.factors is not None)

    def coding(place: Place) -> Coded:
        return blocks_at(place) if isinstance(place.module, Packed) else as_kind(place, config.rest.upper())

    kinds = [kind_at(place, config) for place in packed]
    return written(checkpoint, inputs, max(set(kinds), key=kinds.count), coding)
