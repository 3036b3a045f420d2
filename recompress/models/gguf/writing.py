"""A model becomes a GGUF file, by the library ``gguf``. What a matrix is stored as is the caller's choice; vectors and positions are 32-bit floats, as
llama.cpp wants them.

The same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recompress.errors import InputError
from recompress.models.gguf import library, shape, tokens
from recompress.models.gguf.tensors import Place, numbers_at, places

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BLOCK = 32
"""Numbers with one scale."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
"""What ``general.file_type`` calls a file most of whose matrices are stored so."""
FALLBACK = "F16"
"""What a matrix is stored as whose rows are not made of whole blocks."""


class Coded(NamedTuple):
    """A tensor as it is stored."""

    kind: str
    stored: np.ndarray[Any, Any]


Coding = Callable[[Place], Coded]
"""What a matrix is stored as."""


def write_gguf(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, *, kind: str, coding: Coding, name: str) -> None:
    """Write a file; ``kind`` is what most of its matrices are stored as. Raises ``InputError`` for a model that no such file can hold."""
    gguf = library()
    check_sayable(network)
    values = shape.values_of(network) | tokens.values_of(tokenizer, int(network.get_input_embeddings().weight.shape[0]))
    writer = gguf.GGUFWriter(path, values.pop(shape.ARCHITECTURE))
    writer.add_string("general.name", name)
    writer.add_uint32("general.file_type", FILE_TYPES[kind])
    writer.add_uint32("general.quantization_version", gguf.GGML_QUANT_VERSION)
    _add(writer, values)
    for place in places(network):
        coded = coding(place) if place.is_matrix and place.name != "position_embd.weight" else as_kind(place, "F32")
        quantized = coded.kind not in ("F32", "F16")
        writer.add_tensor(place.name, coded.stored, raw_dtype=gguf.GGMLQuantizationType[coded.kind] if quantized else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_kind(place: Place, kind: str) -> Coded:
    """The numbers at a place, rounded to the nearest that ``kind`` has; in 16 bits where its rows are not made of whole blocks."""
    gguf = library()
    numbers = numbers_at(place).numpy()
    if kind not in ("F32", "F16") and numbers.shape[-1] % BLOCK:
        kind = FALLBACK
    if kind == "F16" and float(np.abs(numbers).max(initial=0)) > float(np.finfo(np.float16).max):
        raise InputError(f"{place.name} holds weights above {np.finfo(np.float16).max:g}, which 16 bits cannot reach")
    return Coded(kind, gguf.quantize(numbers, gguf.GGMLQuantizationType[kind]))


def check_sayable(network: PreTrainedModel) -> None:
    """Raises ``InputError`` for layers that are products of matrices or share their weights, which no file can say."""
    from recompress.models.architecture import is_linear, layers_of
    from recompress.models.factored import token_table
    from recompress.models.packed import PackedLinear
    from recompress.models.shared_layers import shares_of

    if shares_of(network) != tuple(range(len(layers_of(network)))):
        raise InputError("GGUF stores each layer by itself, and some of these layers share their weights")
    layers = layers_of(network)
    parts = [part for layer in layers for part in (layer.query, layer.key, layer.value, layer.out, *layer.neurons_in, layer.neurons_out)]
    if not all(is_linear(part) or isinstance(part, PackedLinear) for part in parts) or token_table(network) is not network.get_input_embeddings():
        raise InputError("GGUF has no place for a matrix that is a product of two; leave the step out that factorizes")
    output = network.get_output_embeddings()
    if output is not None and getattr(output, "bias", None) is not None:
        raise InputError("GGUF has no place for a bias of the output layer of these families")


def _add(writer: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
