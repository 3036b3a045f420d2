"""llama.cpp, in this process: the library inside the package ``xllamacpp``, called through its C interface.

The package's own interface is a server: it gives the likeliest tokens of what it generates, and the probabilities of a prompt not at all. What a gate needs, every
logit at every place of a window, the C interface of the same library gives (``llama_get_logits``); its symbols are in the package's one binary file.

Settings are handed over by value in structures that grow with the library. They are taken from it as bytes (``llama_context_default_params``), and of them only the
first four numbers are set here, which have stood there since there were any; afterwards the library is asked what it understood, and anything else than what was
meant is refused. So a release that moves them is named, and never misread.
Source: llama.cpp, ``include/llama.h``.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recompress.errors import InputError, IntegrityError

INSTALL = "pip install 'recompress[gguf]'"
ROOM = 1024
"""Bytes that are kept for a structure of settings; the library's are a fraction of it."""
CHUNK = 512
"""Tokens that are computed together."""


class Blob(ctypes.Structure):
    """Settings of the library, as bytes: larger than they are, which is harmless, because they are handed over last."""

    _fields_ = (("bytes", ctypes.c_uint8 * ROOM),)


class Batch(ctypes.Structure):
    """``llama_batch``."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


Log = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [Log, c_void_p]),
    "llama_model_default_params": (Blob, []),
    "llama_context_default_params": (Blob, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, Blob]),
    "llama_init_from_model": (c_void_p, [c_void_p, Blob]),
    "llama_free": (None, [c_void_p]),
    "llama_model_free": (None, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_n_batch": (c_uint32, [c_void_p]),
    "llama_n_ubatch": (c_uint32, [c_void_p]),
    "llama_n_seq_max": (c_uint32, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
}
"""What is called, with its result and its arguments."""


def _say_nothing(level: int, text: bytes, data: int | None) -> None:
    """llama.cpp tells everything on the terminal; what goes wrong is said here by errors."""


_quiet = Log(_say_nothing)


@cache
def library() -> Any:
    """The library, ready. Raises ``InputError`` where the package is not installed, or has no such functions."""
    try:
        import xllamacpp.xllamacpp as binary
    except ImportError:
        raise InputError(f"GGUF models run on llama.cpp, whose package xllamacpp is not installed: {INSTALL}") from None
    loaded = ctypes.CDLL(binary.__file__)
    for name, (result, arguments) in FUNCTIONS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError:
            raise InputError(f"the installed xllamacpp has no function {name}; install the version that is pinned: {INSTALL}") from None
        function.restype, function.argtypes = result, arguments
    loaded.llama_log_set(_quiet, None)
    loaded.llama_backend_init()
    return loaded


class LlamaModel:
    """A GGUF file, opened. Raises ``InputError`` where llama.cpp is missing and ``IntegrityError`` for a file that it does not open."""

    def __init__(self, path: Path, threads: int) -> None:
        self._library = library()
        self.threads = threads
        self._context: int | None = None
        self._model = self._library.llama_model_load_from_file(str(path).encode(), self._library.llama_model_default_params())
        if not self._model:
            raise IntegrityError(f"{path} is not opened by llama.cpp: it is cut off, broken, or made for a later version")
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocabulary = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        self.positions = int(self._library.llama_model_n_ctx_train(self._model))
        self.room = 0
        """Tokens that the cache of keys and values holds now."""

    def __del__(self) -> None:
        self._close()
        if getattr(self, "_model", None):
            self._library.llama_model_free(self._model)
            self._model = None

    def _close(self) -> None:
        if getattr(self, "_context", None):
            self._library.llama_free(self._context)
            self._context = None

    def begin(self, room: int) -> None:
        """Forget what was read, and have room for so many tokens. Raises ``InputError`` for more than the model has positions."""
        if room > self.positions:
            raise InputError(f"{room:,} tokens are more than the {self.positions:,} that the model reads")
        if self._context is None or room > self.room:
            self._close()
            self._open(room)
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        self.length = 0

    def _open(self, room: int) -> None:
        settings = self._library.llama_context_default_params()
        chunk = min(CHUNK, room)
        meant = (room, chunk, chunk, 1)
        (c_uint32 * 4).from_buffer(settings)[:] = list(meant)
        self._context = self._library.llama_init_from_model(self._model, settings)
        if not self._context:
            raise InputError(f"llama.cpp has no room for a context of {room:,} tokens")
        names = ("llama_n_ctx", "llama_n_batch", "llama_n_ubatch", "llama_n_seq_max")
        understood = tuple(int(getattr(self._library, name)(self._context)) for name in names)
        if understood[0] < room or understood[1:] != meant[1:]:
            raise InputError(f"the installed xllamacpp understands {understood} where {meant} was meant; install the version that is pinned: {INSTALL}")
        self._library.llama_set_n_threads(self._context, self.threads, self.threads)
        self.room, self._chunk = room, chunk

    def rewind(self, length: int) -> None:
        """Forget what was read behind the first ``length`` tokens. Raises ``InputError`` where so many were not read."""
        if not 0 <= length <= self.length or not self._library.llama_memory_seq_rm(self._library.llama_get_memory(self._context), 0, length, -1):
            raise InputError(f"{length:,} tokens cannot be gone back to: {self.length:,} were read")
        self.length = length

    def read(self, tokens: Int[np.ndarray, " tokens"], *, all_logits: bool) -> Float[np.ndarray, "logits vocabulary"]:
        """Read on, and give the logits behind every token, or behind the last alone."""
        parts = []
        for start in range(0, len(tokens), self._chunk):
            part = tokens[start : start + self._chunk]
            last = start + len(part) == len(tokens)
            wanted = np.ones(len(part), dtype=np.int8) if all_logits else np.zeros(len(part), dtype=np.int8)
            wanted[-1] = wanted[-1] or last
            parts.append(self._decode(np.ascontiguousarray(part, dtype=np.int32), wanted))
        return np.concatenate(parts)

    def _decode(self, tokens: Int[np.ndarray, " tokens"], wanted: Int[np.ndarray, " tokens"]) -> Float[np.ndarray, "logits vocabulary"]:
        count = len(tokens)
        places = np.arange(self.length, self.length + count, dtype=np.int32)
        ones, zero = np.ones(count, dtype=np.int32), (c_int32 * 1)(0)
        sequences = (POINTER(c_int32) * count)(*([ctypes.cast(zero, POINTER(c_int32))] * count))
        pointers = [array.ctypes.data_as(POINTER(c_int32)) for array in (tokens, places, ones)]
        batch = Batch(count, pointers[0], None, pointers[1], pointers[2], sequences, wanted.ctypes.data_as(POINTER(c_int8)))
        if (code := self._library.llama_decode(self._context, batch)) != 0:
            raise InputError(f"llama.cpp does not read {count:,} tokens behind {self.length:,} others (its code {code})")
        self.length += count
        rows = int(wanted.sum())
        if not rows:
            return np.zeros((0, self.vocabulary), dtype=np.float32)
        return np.ctypeslib.as_array(self._library.llama_get_logits(self._context), (rows, self.vocabulary)).copy()

    def tokens(self, text: str) -> list[int]:
        """What the file's own tokenizer makes of a text, as llama.cpp reads it, special tokens included."""
        data = text.encode()
        room = len(data) + 2
        found = (c_int32 * room)()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), found, room, True, True)
        return list(found[:count])
