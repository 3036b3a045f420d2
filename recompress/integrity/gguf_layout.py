"""The layout of a GGUF file, walked through without believing any of its numbers: what it says of its own length must be true before anybody reads more of it.

    "GGUF", version, tensors, values | key, kind, value … | name, dimensions, type, offset … | padding | tensors

A count that is larger than the rest of the file is refused at once; a library that trusts it would loop for years.
Source: the GGUF specification, versions 2 and 3 (little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import BinaryIO, NamedTuple

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value of each kind."""
STRING, ARRAY = 8, 9
ALIGNMENT_KEY, ALIGNMENT = b"general.alignment", 32
DIMENSIONS = 4
"""A tensor has at most so many."""
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144)}
BLOCKS |= {13: (256, 176), 14: (256, 210), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2)}
"""(numbers, bytes) of a block of the types that are common; of others the end is not known, and whoever reads them looks for it."""


class Stored(NamedTuple):
    """What the header says of a tensor."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    offset: int
    """Bytes from the beginning of the file."""

    @property
    def size(self) -> int:
        """Bytes, 0 where the type is not known. Raises ``ValueError`` for rows that are not made of whole blocks."""
        numbers, size = BLOCKS.get(self.kind, (1, 0))
        if self.dimensions and self.dimensions[0] % numbers:
            raise ValueError(f"{self.name} has rows of {self.dimensions[0]} numbers, its type has blocks of {numbers}")
        return prod(self.dimensions) // numbers * size


def check_layout(stream: BinaryIO, size: int) -> tuple[Stored, ...]:
    """Walk through a file of ``size`` bytes. Gives what it says of its tensors. Raises ``ValueError`` where it is no GGUF, or ends before it says that it does."""
    walk = _Walk(stream, size)
    if walk.take(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = walk.number("<I")
    if version not in VERSIONS:
        raise ValueError(f"GGUF version {version} is not known; known: {', '.join(map(str, VERSIONS))}")
    tensors, values = walk.count(), walk.count()
    alignment = ALIGNMENT
    for key, kind in _keys(walk, values):
        place = walk.stream.tell()
        walk.skip_value(kind)
        if key == ALIGNMENT_KEY and kind == 4:
            walk.stream.seek(place)
            alignment = walk.number("<I")
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment}, which is no power of two")
    stored = tuple(_tensor(walk) for _ in range(tensors))
    start = -(-walk.stream.tell() // alignment) * alignment
    placed = tuple(tensor._replace(offset=start + tensor.offset) for tensor in stored)
    for tensor in placed:
        if tensor.offset + tensor.size > size:
            raise ValueError(f"it is {size:,} bytes long, and its tensor {tensor.name} goes on beyond that")
    return placed


class _Walk:
    """A stream that knows where it ends."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size

    def take(self, count: int) -> bytes:
        if count > self.size - self.stream.tell() or len(data := self.stream.read(count)) != count:
            raise ValueError("it ends within its header")
        return data

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self, each: int = 1) -> int:
        """Of things that take so many bytes at least."""
        count = self.number("<Q")
        if count * each > self.size - self.stream.tell():
            raise ValueError(f"its header promises {count:,} of something, which the file has no room for")
        return count

    def skip_value(self, kind: int) -> None:
        if kind in SCALARS:
            self.take(SCALARS[kind])
        elif kind == STRING:
            self.take(self.count())
        elif kind == ARRAY:
            inner = self.number("<I")
            if inner in SCALARS:
                self.stream.seek(self.count(SCALARS[inner]) * SCALARS[inner], 1)
            elif inner == STRING:
                for _ in range(self.count(8)):
                    self.take(self.count())
            else:
                raise ValueError(f"it holds an array of values of kind {inner}, which is not known")
        else:
            raise ValueError(f"it holds a value of kind {kind}, which is not known")


def _keys(walk: _Walk, values: int) -> Iterator[tuple[bytes, int]]:
    for _ in range(values):
        yield walk.take(walk.count()), walk.number("<I")


def _tensor(walk: _Walk) -> Stored:
    name = walk.take(walk.count()).decode("utf-8")
    count = walk.number("<I")
    if count > DIMENSIONS:
        raise ValueError(f"its tensor {name} has {count} dimensions")
    dimensions = tuple(walk.number("<Q") for _ in range(count))
    return Stored(name, dimensions, walk.number("<I"), walk.number("<Q"))
