"""Keys and values that are kept in few bits: how many, and which tokens' when.

    rounded(n) = G * floor(max(0, n - R) / G)            n: tokens read, the present one included

So many of the first tokens are seen rounded, the last R to R + G - 1 as they are. It depends on the token's place alone: a text read at once, in parts, or written
token by token is seen alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Bits = Literal[2, 4, 8]
Group = Literal[8, 16, 32, 64, 128]
Residual = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class CacheBits:
    """How a model keeps keys and values while it reads and writes."""

    bits: Bits
    """Bits of a number."""
    group: Group
    """Tokens of a channel of keys, and channels of a token's values, that share a step."""
    residual: Residual
    """Tokens at the end that are kept as they are, at least."""

    def rounded(self, read: int) -> int:
        """How many of the first tokens the last of ``read`` tokens sees rounded."""
        return self.group * (max(0, read - self.residual) // self.group)

    def parts(self, held: int, count: int) -> Iterator[int]:
        """Lengths of the parts of ``count`` tokens behind ``held`` others, of which each sees one and the same past."""
        start, end = held, held + count
        while start < end:
            stop = min(end, self.residual + self.group * (self.rounded(start + 1) // self.group + 1) - 1)
            yield stop - start
            start = stop

    @property
    def per_number(self) -> float:
        """Bits that a rounded number takes, its share of a step and a least number included."""
        return self.bits + 32 / self.group
