"""ONNX Runtime GenAI on the CPU, as a runtime: the very folder that others serve answers here, through the library that they open it with, with its cache.

Texts are asked one by one, whoever asks: what is measured is what is served. Logits of a whole window are what the graph gives behind the tokens that are appended.
Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError, IntegrityError
from recompress.models.files import first_line
from recompress.models.genai_config import read_genai_config
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.genai import library
from recompress.runtimes.one_at_a_time import OneAtATime

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info

QUIET = 4
"""Nothing on the terminal: what goes wrong is said by errors."""


class GenaiRuntime(OneAtATime):
    """The folder of the graph at ``path``. Raises ``InputError`` when a file of it, or the library, is missing, and ``IntegrityError`` when a file is cut off, broken, or
    says what is not said here."""

    name: RuntimeName = "genai"

    def __init__(self, path: Path, info: Info, threads: int) -> None:
        if not path.is_file():
            raise InputError(f"{path.parent} has no {path.name}")
        config = read_genai_config(path.parent)
        self._library = library()
        self.model = self._open(path, threads)
        self.threads = threads
        super().__init__(info.max_length, config.model.context_length, config.model.vocab_size)
        self.stops = frozenset(config.model.eos_token_id)
        """The tokens that end an answer for whoever serves the folder."""
        self._reader: Any = None
        self._room = self._length = 0

    def _open(self, path: Path, threads: int) -> Any:
        options = {
            "intra_op_num_threads": threads,
            "inter_op_num_threads": 1,
            "log_severity_level": QUIET,
            "session.intra_op.allow_spinning": "0",  # threads that spin between calls would take the processor from whatever is measured next
        }
        try:
            config = self._library.Config(str(path.parent))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            return self._library.Model(config)
        except Exception as error:  # the library's errors have no class of their own
            raise IntegrityError(f"{path} is not opened by ONNX Runtime GenAI: it is cut off or broken ({first_line(error)[:200]})") from None

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        """As ``recompress.runtimes.generation.Continues`` has it, like those that follow."""
        self.begin(room)
        return np.asarray(self.read_on(tokens)[-1])

    def decode(self, token: int) -> Float[np.ndarray, " vocabulary"]:
        return np.asarray(self.read_on([token])[-1])

    def rewind(self, length: int) -> None:
        """Forget what was read behind the first ``length`` tokens. Raises ``InputError`` where fewer were read."""
        if not 0 <= length <= self._length:
            raise InputError(f"{self._length:,} tokens were read, and behind the first {length:,} nothing can be forgotten")
        if length < self._length:
            self._reader.rewind_to(length)
            self._length = length

    def begin(self, room: int) -> None:
        """Forget what was read, and have room for so many tokens. Raises ``InputError`` for more than the model has positions."""
        if room > self.positions:
            raise InputError(f"{room:,} tokens are more than the {self.positions:,} that the model reads")
        if self._reader is None or room > self._room:
            settings = self._library.GeneratorParams(self.model)
            settings.set_search_options(max_length=room, do_sample=False)
            self._reader, self._room, self._length = self._library.Generator(self.model, settings), room, 0
        self.rewind(0)

    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        """Read on, and give the logits behind every token. Raises ``InputError`` where there is no room for so many."""
        if self._length + len(tokens) > self._room:
            raise InputError(f"{self._length + len(tokens):,} tokens are more than the {self._room:,} that there is room for")
        self._reader.append_tokens(np.asarray(tokens, dtype=np.int32))
        self._length += len(tokens)
        [logits] = self._reader.get_output("logits")
        return np.array(logits, dtype=np.float32)

    def written_by_the_library(self, prompt: Sequence[int], count: int) -> list[int]:
        """What the library's own loop writes behind a prompt, each token the likeliest, at most ``count`` and without the one that ends it: what others see who serve
        this folder."""
        settings = self._library.GeneratorParams(self.model)
        settings.set_search_options(max_length=len(prompt) + count, do_sample=False)
        loop = self._library.Generator(self.model, settings)
        loop.append_tokens(np.asarray(prompt, dtype=np.int32))
        while not loop.is_done():
            loop.generate_next_token()
        tokens = [int(token) for token in loop.get_sequence(0)[len(prompt) :]]
        return tokens[:-1] if tokens and tokens[-1] in self.stops else tokens
