"""llama.cpp on the CPU, as a runtime: the very GGUF file that others serve answers here, with the cache of keys and values that it is served with.

Texts are asked one by one, whoever asks: what is measured is what is served. Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.batches import BATCH_SIZE, Feature, Part, in_order
from recompress.runtimes.llama_cpp import LlamaModel

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info


class GgufRuntime:
    """The GGUF file at ``path``. Raises ``InputError`` when it, or llama.cpp, is missing, and ``IntegrityError`` when llama.cpp does not open it."""

    name: RuntimeName = "gguf"

    def __init__(self, path: Path, info: Info, threads: int) -> None:
        if not path.is_file():
            raise InputError(f"{path.parent} has no {path.name}")
        self.model = LlamaModel(path, threads)
        self.threads = threads
        self.longest = info.max_length
        self.positions = self.model.positions
        self.lock = RLock()
        """Whoever asks from several threads asks one after another: there is one cache."""

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "length vocabulary"]]:
        return in_order(self.in_parts(features, batch_size))

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        for i, feature in enumerate(features):
            with self.lock:
                logits = self._of(feature["input_ids"])
            yield [i], [logits]

    def _of(self, tokens: Sequence[int]) -> Float[np.ndarray, "length vocabulary"]:
        if not tokens:
            return np.zeros((0, self.model.vocabulary), dtype=np.float32)
        self.model.begin(max(len(tokens), min(self.longest, self.model.positions)))
        return self.model.read(np.asarray(tokens, dtype=np.int32), all_logits=True)

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        self.model.begin(room)
        [*_, last] = self._read(tokens, every=False)
        return np.asarray(last)

    def decode(self, token: int) -> Float[np.ndarray, " vocabulary"]:
        [*_, last] = self._read([token], every=False)
        return np.asarray(last)

    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        return self._read(tokens, every=True)

    def rewind(self, length: int) -> None:
        self.model.rewind(length)

    def _read(self, tokens: Sequence[int], *, every: bool) -> Float[np.ndarray, "logits vocabulary"]:
        return self.model.read(np.asarray(tokens, dtype=np.int32), all_logits=every)
