"""What the methods share that make an ONNX graph in 8 bits: what is stored so, how many of the bits are used, and what must be measurable in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from recompress.errors import InputError
from recompress.methods.quantization.int8_graph import NODE_BYTES, scales_claim
from recompress.methods.quantization.int8_tables import TableInFourBits, Tables
from recompress.methods.registry import Claim
from recompress.models.architecture import is_linear
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import distinct_tensors
from recompress.models.onnx_graph import read_graph, weights_in
from recompress.models.padding import padding_of
from recompress.runtimes.export import export_graph
from recompress.runtimes.processor import int8_overflows
from recompress.settings.base import Settings

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

SLACK = 0.03
"""Share of the expected bytes by which the file may differ: scales and names."""


class Int8(Settings):
    """What is stored in 8 bits, and how."""

    per_channel: bool = True
    """A scale for each output of a matrix (true) or one for the whole matrix (false, which costs quality and saves next to nothing)."""
    embeddings: Tables = True
    """Store the embedding tables in 8 bits too, each with one scale; ``int4``: those of tokens in 4 bits, with a scale for each block of a row. They are most of a
    small encoder's bytes and none of its time."""
    reduce_range: bool | Literal["auto"] = "auto"
    """Use 7 of the 8 bits. Needed on x86 processors without VNNI, where sums of 8-bit products overflow; costs some quality. ``auto`` does so where the
    processor at hand needs it: the same recipe then gives other bytes on another processor, and ``recompress.json`` says which; true or false give the same."""


def check(config: Int8) -> None:
    """Raises ``InputError`` where the result would be wrong on this processor."""
    if config.reduce_range is False and int8_overflows():
        raise InputError("sums of 8-bit products overflow on this processor, which lacks VNNI; set reduce_range: true, or auto")


def reduces(config: Int8) -> bool:
    """Whether 7 bits are used, on this processor."""
    return int8_overflows() if config.reduce_range == "auto" else config.reduce_range


def table_of(network: PreTrainedModel, config: Int8) -> TableInFourBits | None:
    """The token embeddings in 4 bits, where that is asked for. Raises ``InputError`` for a width that has no blocks."""
    return TableInFourBits(network) if config.embeddings == "int4" else None


def exported(network: PreTrainedModel, *, segments: bool = False) -> onnx.ModelProto:
    """The graph that ONNX Runtime's quantizers take."""
    model = export_graph(network, segments=segments)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # else they ask for a step that changes nothing here
    return model


def onnx_settings(network: PreTrainedModel, config: Int8) -> dict[str, Any]:
    """What ``recompress.json`` says of the graph."""
    return {"int8": True, "pad_id": padding_of(network), **config.model_dump(), "reduce_range": reduces(config)}


def _matrix_weights(network: PreTrainedModel) -> int:
    """Numbers in the weights of linear layers, each once; those of an output layer that is tied to the embeddings belong to these."""
    tables = {module.weight.data_ptr() for module in network.modules() if isinstance(module, nn.Embedding)}
    linears = {module.weight.data_ptr(): module.weight.numel() for module in network.modules() if is_linear(module)}
    return sum(numbers for place, numbers in linears.items() if place not in tables)


def int8_claims(before: Checkpoint, after: Checkpoint, config: Int8) -> Iterator[Claim]:
    """All weights of matrix products in 8 bits, the look-up tables as asked, and the bytes that follow from it."""
    assert isinstance(after.network, Path)
    model = read_graph(after.network)
    weights = weights_in(model)
    numbers = sum(tensor.numel() for tensor in distinct_tensors(before.torch_network).values())
    table = table_of(before.torch_network, config)
    expected = 4 * numbers - 3 * (weights.products_int8 + weights.lookups_int8) - (0 if table is None else table.saved)
    reduced = bool(after.info.onnx.get("reduce_range"))
    yield Claim("share of matrix weights in 8 bits", 1.0, weights.products_int8 / (weights.products - weights.products_packed))
    if others := weights.lookups - weights.lookups_packed:  # a decoder that rotates its positions has one table
        yield Claim("share of embedding weights in 8 bits", float(bool(config.embeddings)), weights.lookups_int8 / others)
    yield from () if table is None else table.claims(model)
    wanted = _matrix_weights(before.torch_network)
    yield Claim("weights of matrix products", wanted, min(weights.products, wanted))  # a turned copy may stand besides
    yield Claim("bits that matrix weights use", 7 if reduced else 8, weights.bits_used)
    yield Claim("7 bits, where asked or needed", float(reduces(config)), float(reduced))
    yield scales_claim(model, per_channel=config.per_channel)
    yield Claim("bytes of model.onnx", expected, after.network.stat().st_size, tolerance=SLACK * expected + NODE_BYTES * len(model.graph.node))
