"""What the methods share that write a decoder for ONNX Runtime GenAI: how they are registered, and what is claimed of a folder, looked at in it and asked of the library.

    apart = ||y - y'||_2 / ||y||_2        y: what torch answers with the very numbers that the file holds, y': what ONNX Runtime GenAI answers

With inputs as floats nothing but the order of sums lies between the two: the file is asked once in that way too, whatever its level is. A matrix in the wrong place makes
this about 1.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recompress.methods.probe import probe_features, probe_text
from recompress.methods.quantization.gguf_file import TEXTS, apart
from recompress.methods.quantization.int8_graph import NODE_BYTES
from recompress.methods.registry import OF_LANGUAGE, Claim, Inputs
from recompress.models.architecture import architecture_of, is_linear
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import write_config
from recompress.models.genai_config import GENAI_FILE, GRAPH_FILE, KINDS
from recompress.models.gguf.tensors import POSITIONS, is_tied
from recompress.models.onnx_graph import write_graph
from recompress.models.packed import Packed
from recompress.models.surgery import weight_of
from recompress.models.tokenizer import AWKWARD, save_tokenizer
from recompress.runtimes import runtime_of
from recompress.runtimes.export import CLOSE
from recompress.runtimes.genai import library
from recompress.runtimes.genai.folder import write_folder
from recompress.runtimes.genai.held import Held, bytes_of
from recompress.runtimes.genai_runtime import GenaiRuntime
from recompress.runtimes.generation import can_continue, continued
from recompress.runtimes.nbits import in_floats
from recompress.runtimes.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

    from recompress.runtimes.genai.matrices import Coding

log = logging.getLogger(__name__)
ROUNDED = 0.1
"""How far answers may lie from torch's where inputs are rounded to 8 bits, as a share of their size."""
OTHERWISE = 0.5
"""Share of the data's texts that the library's own tokenizer may cut otherwise than the model's, which is always the one that is asked here; beyond that it does not know
its kind, and nobody could serve the folder with it."""
WRITTEN = 12
"""Tokens that are written behind a prompt by the library's own loop, and by ours."""
PROMPTS = 4
FEW = 2
"""Windows that are read with inputs as floats, which takes several times as long: a matrix in the wrong place shows in one."""
WRITES: dict[str, Any] = {
    "family": "quantization",
    "gives": "genai",
    "benchmarks": OF_LANGUAGE,
    "architectures": tuple(sorted(KINDS)),
    "source": "ONNX Runtime GenAI; ONNX Runtime's contrib operators GroupQueryAttention, MatMulNBits and GatherBlockQuantized",
}
"""What all of them register alike."""


def written(checkpoint: Checkpoint, inputs: Inputs, coding: Coding, level: int, told: Mapping[str, Any]) -> Checkpoint:
    """The model as a folder below the step's own. ``told``: the settings, which stay with the model."""
    library()
    path = write_folder(checkpoint.torch_network, checkpoint.tokenizer, inputs.workdir, coding, level)
    write_config(checkpoint.torch_network, inputs.workdir)
    return Checkpoint(path, checkpoint.tokenizer, replace(checkpoint.info, runtime="genai", onnx=dict(told)))


def matrices(network: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    """Names and modules of all matrices whose storage a setting chooses: linear layers and token embeddings, each once, an output layer that is tied to these left out."""
    tied = network.get_output_embeddings() if is_tied(network) else None
    positions = POSITIONS.get(architecture_of(network).name)
    places = None if positions is None else network.base_model.get_submodule(positions)
    for name, module in network.named_modules():
        if module is not tied and module is not places and (is_linear(module) or isinstance(module, Packed | nn.Embedding)):
            yield name, module


def claims_of_folder(
    before: Checkpoint, after: Checkpoint, graph: onnx.ModelProto, held: Mapping[str, Held], kinds: Mapping[str, tuple[str, int]], level: int, inputs: Inputs
) -> list[Claim]:
    """Kinds, levels and bytes as asked, answers beside torch's with the same numbers, the tokens of the library's tokenizer and of its loop. ``held``: what ``graph``
    holds; ``kinds``: for each matrix by its name what it is to be stored as, and the bytes that this takes."""
    assert isinstance(after.network, Path)
    return [
        *_stored(before, after.network, graph, held, kinds, level),
        *_answers(before, after, graph, held, level, inputs),
        _tokens(before, after.network, inputs),
        _written_alike(before, after.network, after, inputs),
    ]


def _stored(
    before: Checkpoint, path: Path, graph: onnx.ModelProto, held: Mapping[str, Held], kinds: Mapping[str, tuple[str, int]], level: int
) -> Iterator[Claim]:
    vectors = {name for name in held if name not in kinds}
    expected = sum(size for _, size in kinds.values()) + sum(held[name].numbers.nbytes for name in vectors)
    wrong = sum(name not in held or held[name].kind != kind for name, (kind, _) in kinds.items())
    yield Claim("matrices that are stored otherwise than asked", 0, wrong)
    yield Claim("vectors that are not the network's, number for number", 0, _other_vectors(before.torch_network, held, kinds))
    yield Claim("products at another accuracy level", 0, sum(asked != level for tensor in held.values() for asked in tensor.levels))
    yield Claim("bytes of all tensors", expected, bytes_of(held))
    yield Claim(f"bytes of {GRAPH_FILE}", expected, path.stat().st_size, NODE_BYTES * len(graph.graph.node))


def _other_vectors(network: PreTrainedModel, held: Mapping[str, Held], kinds: Mapping[str, tuple[str, int]]) -> int:
    own = network.state_dict()
    return sum(name not in held or not torch.from_numpy(held[name].numbers.copy()).equal(own[name].float()) for name in vectors_of(network, kinds))


def vectors_of(network: PreTrainedModel, kinds: Mapping[str, tuple[str, int]]) -> list[str]:
    """The names of all parameters that are no matrix of ``kinds``, one that several modules share once."""
    return [name for name, _ in network.named_parameters() if name not in kinds]


def _answers(before: Checkpoint, after: Checkpoint, graph: onnx.ModelProto, held: Mapping[str, Held], level: int, inputs: Inputs) -> Iterator[Claim]:
    features = probe_features(before, inputs)
    expected = TorchRuntime(with_numbers(before.torch_network, held), threads=1).logits(features)
    rounds = level != 1 and any(tensor.levels for tensor in held.values())
    with_floats, some = (as_floats(after, graph, inputs.workdir / "floats"), features[:FEW]) if rounds else (after, features)
    exact = apart(expected[: len(some)], runtime_of(with_floats).logits(some))
    yield Claim("answers apart from torch's with the file's numbers, inputs as floats", CLOSE, exact, bound="at most")
    if rounds:
        what = "answers apart from torch's with the file's numbers, inputs rounded to 8 bits"
        yield Claim(what, ROUNDED, apart(expected, runtime_of(after).logits(features)), bound="at most")


def as_floats(after: Checkpoint, graph: onnx.ModelProto, folder: Path) -> Checkpoint:
    """The same folder, but for the level at which codes are multiplied."""
    assert isinstance(after.network, Path)
    other = type(graph)()
    other.CopyFrom(graph)
    for node in other.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(other, folder / GRAPH_FILE)
    shutil.copyfile(after.network.with_name(GENAI_FILE), folder / GENAI_FILE)
    return replace(after, network=folder / GRAPH_FILE)


def with_numbers(network: PreTrainedModel, held: Mapping[str, Held]) -> PreTrainedModel:
    """A copy of the network with the numbers that a graph holds."""
    twin = in_floats(network)
    modules = dict(twin.named_modules())
    for name, tensor in held.items():
        place, _, part = name.rpartition(".")
        module, numbers = modules[place], torch.from_numpy(tensor.numbers.copy())
        (weight_of(module) if part == "weight" and numbers.ndim == 2 else getattr(module, part).data).copy_(numbers)
    return twin


def _tokens(before: Checkpoint, path: Path, inputs: Inputs) -> Claim:
    """The library's own tokenizer, which reads the tokenizer's files in its own way: on texts of the data, and, for the log, on awkward ones. Here nobody asks it; whoever
    serves the folder with it is told."""
    folder = inputs.workdir / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(before.tokenizer, folder)
    shutil.copyfile(path.with_name(GENAI_FILE), folder / GENAI_FILE)
    texts = [" ".join(row.words) for row in probe_text(inputs, TEXTS)]
    otherwise, awkward = (cut_otherwise(before, folder, some) for some in (texts, AWKWARD))
    if otherwise or awkward:
        log.warning(
            "ONNX Runtime GenAI's own tokenizer cuts %d of %d texts of the data and %d of %d awkward ones otherwise than the model's; hand it tokens of tokenizer.json",
            *(otherwise, len(texts), awkward, len(AWKWARD)),
        )
    return Claim("share of the data's texts that the library's own tokenizer cuts otherwise", OTHERWISE, otherwise / max(1, len(texts)), bound="at most")


def cut_otherwise(model: Checkpoint, folder: Path, texts: Sequence[str]) -> int:
    """How many texts the library's tokenizer, opened from ``folder``, cuts otherwise than the model's; all of them, where it does not know the kind."""
    try:
        own = library().Tokenizer(library().Config(str(folder)))
    except RuntimeError:
        return len(texts)
    return sum(own.encode(text).tolist() != model.tokenizer(text, verbose=False)["input_ids"] for text in texts)


def _written_alike(before: Checkpoint, path: Path, after: Checkpoint, inputs: Inputs) -> Claim:
    """Both loops write the likeliest token; ours is the one that is judged, the library's the one that others run."""
    runtime = GenaiRuntime(path, after.info, threads=1)
    other = 0
    for feature in probe_features(before, inputs)[:PROMPTS]:
        prompt = feature["input_ids"][: max(1, min(len(feature["input_ids"]), runtime.positions - WRITTEN))]
        count = min(WRITTEN, runtime.positions - len(prompt))
        other += list(continued(can_continue(runtime), prompt, count, runtime.stops).tokens) != runtime.written_by_the_library(prompt, count)
    return Claim("prompts behind which the library's own loop writes otherwise", 0, other)
