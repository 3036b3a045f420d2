"""Which files a model may consist of, and the proof that each is what its name says.

Nothing here can run code when it is read: weights are safetensors, ONNX or GGUF, everything else is JSON, text or a SentencePiece model. A pickle is refused
whatever it is called, because every kind is recognised by its content, and a file that was cut short is refused because its content says how long it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from recompress.errors import IntegrityError
from recompress.integrity.gguf_layout import check_layout

Check = Callable[[BinaryIO, int], None]
"""Reads a file of a given size in bytes; raises ``ValueError`` when it is not of the kind."""
MAX_TEXT_BYTES = 256 << 20
MAX_HEADER_BYTES = 100 << 20
"""The limit of the safetensors format itself."""
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def check_kind(directory: Path, path: str, kinds: Mapping[str, Check]) -> None:
    """Raises ``IntegrityError`` when the file is of none of these kinds, or is not what its name says, or is cut short."""
    kind = kinds.get(PurePosixPath(path).name) or kinds.get(PurePosixPath(path).suffix)
    if kind is None:
        raise IntegrityError(f"{path} is of a kind that is not accepted; a model holds safetensors, ONNX, GGUF, JSON and text")
    file = directory / path
    with file.open("rb") as stream:
        if stream.read(4).startswith(PICKLES):
            raise IntegrityError(f"{path} is a pickle or an archive, which can run code when it is read; save the weights as safetensors or ONNX")
        stream.seek(0)
        try:
            kind(stream, file.stat().st_size)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"{path} is broken or cut short: {error}; make the model again") from None


def _safetensors(stream: BinaryIO, size: int) -> None:
    """Eight bytes with the header's length, the header in JSON, and the tensors' bytes without a gap or a rest."""
    length = int.from_bytes(stream.read(8), "little")
    if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
        raise ValueError("no safetensors header")
    header = json.loads(stream.read(length))
    spans = sorted(tuple(tensor["data_offsets"]) for name, tensor in header.items() if name != "__metadata__")
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise ValueError("its tensors overlap or leave gaps")
        end = stop
    if not spans or size != 8 + length + end:
        raise ValueError(f"it should be {8 + length + end:,} bytes long and is {size:,}")


def _gguf(stream: BinaryIO, size: int) -> None:
    check_layout(stream, size)


def _onnx(stream: BinaryIO, size: int) -> None:
    _protobuf(stream, size, {(1, 0): "version of ONNX", (7, 2): "graph"})


def _sentencepiece(stream: BinaryIO, size: int) -> None:
    _protobuf(stream, size, {(1, 2): "pieces"})


def _protobuf(stream: BinaryIO, size: int, needed: dict[tuple[int, int], str]) -> None:
    """A protocol buffer is a row of fields, each with its length, that ends where the file ends. ``needed``: fields (number, kind) that must be among them."""
    while stream.tell() < size:
        tag = _varint(stream)
        kind, number = tag & 7, tag >> 3
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError("not a protocol buffer")
        needed.pop((number, kind), None)
        skip = {0: 0, 1: 8, 5: 4}[kind] if kind != 2 else _varint(stream)
        if kind == 0:
            _varint(stream)
        if stream.tell() + skip > size:
            raise ValueError("its last field goes on beyond the end of the file")
        stream.seek(skip, 1)
    if needed:
        raise ValueError(f"it holds no {' and no '.join(needed.values())}")


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("not a protocol buffer")


def _text(stream: BinaryIO, size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"a text of {size:,} bytes, the limit is {MAX_TEXT_BYTES:,}")
    if b"\0" in (data := stream.read()):
        raise ValueError("not a text")
    data.decode("utf-8")


def _json(stream: BinaryIO, size: int) -> None:
    _text(stream, size)
    stream.seek(0)
    json.loads(stream.read())


def _nothing(stream: BinaryIO, size: int) -> None:
    if size:
        raise ValueError("it should be empty")


KINDS: dict[str, Check] = {
    ".safetensors": _safetensors,
    ".onnx": _onnx,
    ".gguf": _gguf,
    ".model": _sentencepiece,
    ".json": _json,
    ".txt": _text,
    ".md": _text,
    ".jinja": _text,
}
"""What stands in a model directory: how each name or suffix is checked."""

WRAPPING: dict[str, Check] = {
    "MLmodel": _text,
    "requirements.txt": _text,
    "conda.yaml": _text,
    "python_env.yaml": _text,
    ".py": _text,
    "__pycache__": _nothing,
}
"""What a registered version holds around its model directory: the code that serves it. ``__pycache__`` is an empty file, so that Python keeps no bytecode there."""
