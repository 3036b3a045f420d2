"""A GGUF file read with suspicion: its layout is walked through before the library looks at it, and what cannot be used is refused by name, before any number
is computed."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError, IntegrityError
from recompress.integrity.gguf_layout import Stored, check_layout
from recompress.models.files import first_line
from recompress.models.gguf import library

FLOATS = {"F32": np.float32, "F16": np.float16}


class Held(NamedTuple):
    """A tensor of a file; its bytes are looked at when they are asked for."""

    name: str
    shape: tuple[int, ...]
    """``[out, in]``, as torch has it."""
    kind: str
    """The name of its type: ``F16``, ``Q4_1`` …"""
    stored: np.ndarray[Any, Any]

    def numbers(self) -> Float[np.ndarray, "..."]:
        """In 32-bit floats. Raises ``InputError`` for a type that the library cannot turn into floats."""
        gguf = library()
        try:
            floats: Float[np.ndarray, "..."] = gguf.dequantize(np.asarray(self.stored), gguf.GGMLQuantizationType[self.kind])
        except NotImplementedError:
            raise InputError(f"its tensor {self.name} is quantized as {self.kind}, which the package gguf cannot turn into floats; take another file") from None
        return floats.reshape(self.shape)


class GgufFile(NamedTuple):
    """What a file holds."""

    values: Mapping[str, Any]
    """Texts, numbers and lists by their keys."""
    tensors: Mapping[str, Held]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def read_gguf(path: Path) -> GgufFile:
    """The whole file. Raises as ``read_tensors``."""
    tensors = read_tensors(path)
    try:
        return GgufFile({name: field.contents() for name, field in library().GGUFReader(path).fields.items()}, tensors)
    except Exception as error:  # the library raises whatever numpy does
        raise IntegrityError(f"{path} is no GGUF file that can be read: {first_line(error)}; get it again") from None


def read_tensors(path: Path) -> dict[str, Held]:
    """The tensors by their names, without tokens and merges, which take the library seconds. Raises ``IntegrityError`` for a file that is none, is cut off or
    broken, and ``InputError`` for a type of tensor that nobody here can read, or where the library is missing."""
    gguf = library()
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        with path.open("rb") as stream:
            header = check_layout(stream, path.stat().st_size)
    except ValueError as error:
        raise IntegrityError(f"{path} is no whole GGUF file: {error}; get it again") from None
    known = {int(kind) for kind in gguf.GGMLQuantizationType}
    for tensor in header:
        if tensor.kind not in known:
            raise InputError(f"{path}: its tensor {tensor.name} is of type {tensor.kind}, which the package gguf does not know; take another file")
    data = np.memmap(path, mode="r")
    try:
        return {tensor.name: _held(tensor, data) for tensor in header}
    except ValueError as error:
        raise IntegrityError(f"{path} is no whole GGUF file: {error}; get it again") from None


def _held(tensor: Stored, data: np.ndarray[Any, Any]) -> Held:
    gguf = library()
    kind = gguf.GGMLQuantizationType(tensor.kind)
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    shape = tuple(reversed(tensor.dimensions))
    count = prod(shape) // numbers * size
    if tensor.offset + count > len(data) or (shape and shape[-1] % numbers):
        raise ValueError(f"its tensor {tensor.name} goes on beyond its end, or has rows that are no whole blocks")
    stored = np.asarray(data[tensor.offset : tensor.offset + count])
    form = FLOATS.get(kind.name)
    return Held(tensor.name, shape, kind.name, stored.view(form).reshape(shape) if form else stored.reshape(*shape[:-1], -1))
