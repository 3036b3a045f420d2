"""What runtimes share that read one text at a time, whoever asks, with one cache: what is measured is what is served."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from threading import RLock

import numpy as np
from jaxtyping import Float

from recompress.runtimes.batches import BATCH_SIZE, Feature, Part, in_order


class OneAtATime(ABC):
    """A model of language. Who inherits says how it begins and how it reads on."""

    def __init__(self, longest: int, positions: int, vocabulary: int) -> None:
        self.longest, self.positions, self.vocabulary = longest, positions, vocabulary
        self.lock = RLock()
        """Whoever asks from several threads asks one after another: there is one cache."""

    @abstractmethod
    def begin(self, room: int) -> None:
        """Forget what was read, and have room for so many tokens. Raises ``InputError`` for more than the model has positions."""

    @abstractmethod
    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        """The logits behind each token."""

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "length vocabulary"]]:
        return in_order(self.in_parts(features, batch_size))

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        for i, feature in enumerate(features):
            with self.lock:
                logits = self._of(feature["input_ids"])
            yield [i], [logits]

    def _of(self, tokens: Sequence[int]) -> Float[np.ndarray, "length vocabulary"]:
        if not tokens:
            return np.zeros((0, self.vocabulary), dtype=np.float32)
        self.begin(max(len(tokens), min(self.longest, self.positions)))
        return self.read_on(tokens)
