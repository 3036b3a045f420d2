"""A model of language on a runtime that keeps nothing: it writes all the same, and reads the whole text again for each token.

Its answers are those that it is served with; only its time says something about the graph without a cache that it is, and nothing about the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from recompress.runtimes.generation import Continues

if TYPE_CHECKING:
    from recompress.runtimes import Runtime


def as_continuing(runtime: Runtime, positions: int) -> Continues:
    """The runtime itself, where it has a cache; ``positions``: the most tokens that it reads, where it does not say so itself."""
    return runtime if hasattr(runtime, "prefill") else Rereading(runtime, positions)  # type: ignore[return-value]


class Rereading:
    """What ``Continues`` asks for, by reading again."""

    def __init__(self, runtime: Runtime, positions: int) -> None:
        self.runtime, self.positions = runtime, positions
        self.lock = RLock()
        self._tokens: list[int] = []

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        self._tokens = []
        [*_, last] = self.read_on(tokens)
        return np.asarray(last)

    def decode(self, token: int) -> Float[np.ndarray, " vocabulary"]:
        [*_, last] = self.read_on([token])
        return np.asarray(last)

    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        self._tokens += tokens
        [logits] = self.runtime.logits([{"input_ids": self._tokens, "attention_mask": [1] * len(self._tokens)}], 1)
        behind: Float[np.ndarray, "tokens vocabulary"] = np.asarray(logits)[-len(tokens) :]
        return behind

    def rewind(self, length: int) -> None:
        del self._tokens[length:]
