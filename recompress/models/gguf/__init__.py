"""GGUF, the files that llama.cpp serves: read into a base, written from a model.

    tensors    which tensor of a file is which part of a network, and in what order its rows stand
    shape      what a config says, in the keys of a file
    tokens     a tokenizer, in the keys of a file
    base       a file becomes the folder of a base model
    writing    a model becomes a file
    blocks     codes of packed weights in the blocks of a file, none of them rounded again

The library ``gguf`` reads and writes the file itself; it is imported where it is needed, so that nobody else has to have it.
"""

from __future__ import annotations

from types import ModuleType

from recompress.errors import InputError

GGUF_FILE = "model.gguf"
INSTALL = "pip install 'recompress[gguf]'"


def library() -> ModuleType:
    """The library ``gguf``. Raises ``InputError`` where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise InputError(f"GGUF files need the package gguf, which is not installed: {INSTALL}") from None
    module: ModuleType = gguf
    return module
