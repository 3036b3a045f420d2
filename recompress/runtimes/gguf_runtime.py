"""llama.cpp on the CPU, as a runtime: the very GGUF file that others serve answers here, with the cache of keys and values that it is served with.

Texts are asked one by one, whoever asks: what is measured is what is served. Imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.llama_cpp import LlamaModel
from recompress.runtimes.one_at_a_time import OneAtATime

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info


class GgufRuntime(OneAtATime):
    """The GGUF file at ``path``. Raises ``InputError`` when it, or llama.cpp, is missing, and ``IntegrityError`` when llama.cpp does not open it."""

    name: RuntimeName = "gguf"

    def __init__(self, path: Path, info: Info, threads: int) -> None:
        if not path.is_file():
            raise InputError(f"{path.parent} has no {path.name}")
        self.model = LlamaModel(path, threads)
        self.threads = threads
        super().__init__(info.max_length, self.model.positions, self.model.vocabulary)

    def begin(self, room: int) -> None:
        self.model.begin(room)

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        self.begin(room)
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
