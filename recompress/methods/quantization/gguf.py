"""GGUF: the model as a file that llama.cpp serves, its matrices rounded to the nearest in blocks of 32 columns, each with a scale in 16 bits.

    q8_0:  W ~ d * q          d = max |W| / 127              q = round(W / d)
    q4_0:  W ~ d * (q - 8)    d = W[i] / -8, where |W[i]| is the largest          q = round(W / d) + 8, at most 15
    q4_1:  W ~ d * q + m      m = min W, d = (max W - m) / 15                     q = round((W - m) / d)

Tokenizer and chat template are in the file. Fewer layers, equal widths of all layers and a smaller vocabulary need nothing of their own; what a file cannot say (layers of
different widths, shared layers, factors) is refused by name. A matrix whose rows are no whole blocks is stored in 16 bits, as the official tools do.
Source: the GGUF specification; llama.cpp, ``ggml-quants.c`` (the reference rounding), by the package ``gguf``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from recompress.methods.quantization.gguf_file import WRITES, claims_of_file, matrices, written
from recompress.methods.registry import Claim, Inputs, method
from recompress.models.checkpoint import Checkpoint
from recompress.models.gguf.reading import read_tensors
from recompress.models.gguf.tensors import Place, numbers_at
from recompress.models.gguf.writing import BLOCK, Coded, as_kind
from recompress.settings.base import Settings

Kind = Literal["f32", "f16", "q8_0", "q4_1", "q4_0"]
STEPS = {"Q8_0": 0.5 + 127 / 2048, "Q4_1": 0.5 + 30 / 2048, "Q4_0": 1 + 8 / 2048}
"""The largest error of a weight in units of its block's span, divided by so many steps: half a step, the whole one that Q4_0 lacks on one side, and the 11 digits of
scales."""
SPANS = {"Q8_0": 127, "Q4_1": 15, "Q4_0": 8}
"""Steps from zero to the largest weight of a block, or from its smallest to its largest."""


class Gguf(Settings):
    """How weights are stored."""

    weights: Kind = "q8_0"
    """What the matrices of the layers are stored as."""
    embeddings: Kind | None = None
    """What the token embeddings and the output layer are stored as; ``q8_0`` beside 4 bits, and otherwise the same as the layers, when left out."""

    @property
    def outer(self) -> str:
        return self.embeddings or ("q8_0" if self.weights.startswith("q4") else self.weights)


OUTER = ("token_embd.weight", "output.weight")


def kind_at(place: Place, config: Gguf) -> str:
    """What a matrix is asked to be stored as, as the library calls it."""
    return (config.outer if place.name in OUTER else config.weights).upper()


def spans(weight: Float[np.ndarray, "rows columns"], kind: str) -> Float[np.ndarray, "rows blocks 1"]:
    """What one step of each block may be at most."""
    blocks = weight.reshape(len(weight), -1, BLOCK)
    span = np.ptp(blocks, axis=-1, keepdims=True) if kind == "Q4_1" else np.abs(blocks).max(axis=-1, keepdims=True)
    steps: Float[np.ndarray, "rows blocks 1"] = span / SPANS[kind]
    return steps


def beyond(weight: Float[np.ndarray, "rows columns"], stored: Float[np.ndarray, "rows columns"], kind: str) -> int:
    """How many weights are stored further from what they were than their nearest step can be."""
    error = np.abs(weight - stored)
    if kind == "F32":
        return int((error > 0).sum())
    if kind == "F16":
        return int((error > np.abs(weight) / 2048 + 2.0**-25).sum())
    steps = spans(weight, kind)
    return int((error.reshape(len(weight), -1, BLOCK) > STEPS[kind] * steps + 2.0**-24 * SPANS[kind]).sum())


def prove(before: Checkpoint, after: Checkpoint, config: Gguf, inputs: Inputs) -> list[Claim]:
    """Every weight near what it was, in the kind that was asked for; and what is claimed of every file."""
    assert isinstance(after.network, Path)
    held = read_tensors(after.network)
    pairs = ((place, held[place.name]) for place in matrices(before.torch_network))
    far = sum(beyond(numbers_at(place).numpy(), tensor.numbers(), tensor.kind) for place, tensor in pairs)
    return [Claim("weights further away than their nearest step", 0, far), *claims_of_file(before, after, held, partial(kind_at, config=config), inputs)]


@method(
    "gguf",
    Gguf,
    prove=prove,
    **WRITES,
    source="the GGUF specification; llama.cpp, ggml-quants.c",
    shrinks="bytes, to about 17/32 (q8_0), 10/32 (q4_1) or 9/32 (q4_0) of 16 bits; and what has to be installed: no torch",
    speeds_up="generating, on CPUs",
)
def write_file(checkpoint: Checkpoint, config: Gguf, inputs: Inputs) -> Checkpoint:
    """A GGUF file with tokenizer and chat template, rounded to the nearest in blocks of 32; runs on llama.cpp."""

    def coding(place: Place) -> Coded:
        return as_kind(place, kind_at(place, config))

    return written(checkpoint, inputs, config.weights.upper(), coding)
