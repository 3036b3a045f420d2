"""What the methods share that write GGUF files: how they are registered, and what is claimed of a file, looked at in it and asked of llama.cpp.

    apart = ||y - y'||_2 / ||y||_2        y: what torch answers with the very numbers that the file holds, y': what llama.cpp answers

A matrix in the wrong place, or with its rows in the wrong order, makes this about 1. What remains is llama.cpp's own rounding: of inputs to 8 bits where weights are in
blocks, of keys and values to 16 bits, and of GPT-2's activation to a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recompress.methods.probe import probe_features, probe_text
from recompress.methods.registry import OF_LANGUAGE, Claim, Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import write_config
from recompress.models.gguf import GGUF_FILE
from recompress.models.gguf.reading import Held
from recompress.models.gguf.shape import FAMILIES
from recompress.models.gguf.tensors import Place, places, put_at
from recompress.models.gguf.writing import BLOCK, FALLBACK, Coding, write_gguf
from recompress.models.tokenizer import AWKWARD
from recompress.runtimes import runtime_of
from recompress.runtimes.llama_cpp import LlamaModel
from recompress.runtimes.nbits import in_floats
from recompress.runtimes.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

BYTES = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34)}
"""(numbers, bytes) of a block, by llama.cpp's definition."""
FLOATS = ("F32", "F16")
EXACT, ROUNDED = 0.01, 0.1
"""How far llama.cpp may answer from torch with the same numbers: where inputs are floats, and where they are rounded to 8 bits."""
REST = 0.05
"""How far answers may lie apart because of what is stored in fewer bits than the packed network has: its embeddings, and the lowest weights of groups."""
TEXTS = 64
"""Texts whose tokens are compared."""
WRITES: dict[str, Any] = {"family": "quantization", "gives": "gguf", "benchmarks": OF_LANGUAGE, "architectures": FAMILIES}
"""What all of them register alike."""
KindOf = Callable[[Place], str]
"""What a matrix is to be stored as, where its rows are made of whole blocks."""


def written(checkpoint: Checkpoint, inputs: Inputs, kind: str, coding: Coding) -> Checkpoint:
    """The model as a GGUF file below the step's own folder."""
    network = checkpoint.torch_network
    path = inputs.workdir / GGUF_FILE
    write_gguf(network, checkpoint.tokenizer, path, kind=kind, coding=coding, name=str(network.config.model_type))
    write_config(network, inputs.workdir)
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info))


def matrices(network: PreTrainedModel) -> list[Place]:
    """The places whose kind a setting chooses."""
    return [place for place in places(network) if place.is_matrix and place.name != "position_embd.weight"]


def expected_kind(kind: str, columns: int) -> str:
    return kind if kind in FLOATS or columns % BLOCK == 0 else FALLBACK


def claims_of_file(before: Checkpoint, after: Checkpoint, held: Mapping[str, Held], kind_of: KindOf, inputs: Inputs) -> list[Claim]:
    """Kinds and bytes as asked, the tokens of the file's own tokenizer, and llama.cpp's answers beside torch's with the same numbers. ``held``: what the file of
    ``after`` holds."""
    assert isinstance(after.network, Path)
    return [*_stored(before, held, kind_of), _tokens(before, after.network, inputs), *_answers(before, after, held, inputs)]


def _stored(before: Checkpoint, held: Mapping[str, Held], kind_of: KindOf) -> Iterator[Claim]:
    network = before.torch_network
    kinds = {place.name: expected_kind(kind_of(place), held[place.name].shape[-1]) for place in matrices(network)}
    expected = sum(_bytes(kinds.get(name, "F32"), tensor.shape) for name, tensor in held.items())
    yield Claim("tensors of the file", len(list(places(network))), len(held))
    yield Claim("matrices that are stored otherwise than asked", 0, sum(held[name].kind != kind for name, kind in kinds.items()))
    yield Claim("bytes of all tensors", expected, sum(tensor.stored.nbytes for tensor in held.values()))


def _bytes(kind: str, shape: tuple[int, ...]) -> int:
    numbers, size = BYTES[kind]
    return prod(shape) // numbers * size


def _tokens(before: Checkpoint, path: Path, inputs: Inputs) -> Claim:
    """The file's own tokenizer, in llama.cpp, on awkward texts and on the first of the training data."""
    model = LlamaModel(path, threads=1)
    normalizer = before.tokenizer.backend_tokenizer.normalizer
    texts = [*AWKWARD, *(" ".join(example.words) for example in probe_text(inputs, TEXTS))]
    texts = texts if normalizer is None else [normalizer.normalize_str(text) for text in texts]  # which llama.cpp leaves to whoever asks
    ours = [before.tokenizer(text, verbose=False)["input_ids"] for text in texts]
    return Claim("texts that the file's own tokenizer cuts otherwise", 0, sum(model.tokens(text) != tokens for text, tokens in zip(texts, ours, strict=True)))


def _answers(before: Checkpoint, after: Checkpoint, held: Mapping[str, Held], inputs: Inputs) -> Iterator[Claim]:
    features = probe_features(before, inputs)
    expected = TorchRuntime(with_numbers(before.torch_network, held), threads=1).logits(features)
    floats = all(tensor.kind in FLOATS for tensor in held.values())
    what = f"llama.cpp's answers apart from torch's with the file's numbers, inputs {'as floats' if floats else 'rounded to 8 bits'}"
    yield Claim(what, EXACT if floats else ROUNDED, apart(expected, runtime_of(after).logits(features)), bound="at most")
    if before.info.runtime == "packed":
        own = runtime_of(before).logits(features)
        yield Claim("torch's answers with the file's numbers apart from the packed network's", REST, apart(own, expected), bound="at most")


def with_numbers(network: PreTrainedModel, held: Mapping[str, Held]) -> PreTrainedModel:
    """A copy of the network with the numbers that a file holds."""
    twin = in_floats(network)
    for place in places(twin):
        put_at(place, torch.from_numpy(held[place.name].numbers().copy()))
    return twin


def apart(expected: Sequence[np.ndarray[Any, Any]], answered: Sequence[np.ndarray[Any, Any]]) -> float:
    """The distance of two lists of answers, as a share of the size of the first."""
    size = sum(float(np.square(was, dtype=np.float64).sum()) for was in expected) or 1.0
    error = sum(float(np.square(np.subtract(was, now, dtype=np.float64)).sum()) for was, now in zip(expected, answered, strict=True))
    return float((error / size) ** 0.5)
