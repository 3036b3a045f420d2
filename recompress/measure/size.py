"""How large a model is: the bytes that would be shipped, and the numbers in its weights."""

from __future__ import annotations

from pathlib import Path

from recompress.integrity.digest import manifest
from recompress.models.checkpoint import WEIGHTS_FILE, read_info
from recompress.models.one_file import FILES, numbers_in_file


def size_bytes(directory: Path) -> int:
    """Bytes of all files of a model directory: weights, tokenizer, configuration. All of them are needed to serve it, and all are counted."""
    return sum(entry.size for entry in manifest(directory))


def parameters(directory: Path) -> int:
    """Numbers stored in the weights; one that is used in two places counts once. Of an ONNX graph and a GGUF file, scales and zero points do not count.

    Raises ``InputError`` for a directory that holds no model and ``IntegrityError`` for a broken one.
    """
    if (runtime := read_info(directory).runtime) in FILES:
        return numbers_in_file(directory / FILES[runtime])
    from recompress.models.files import read_tensors
    from recompress.models.packed import numbers_in as numbers_in_tensors

    return numbers_in_tensors(read_tensors(directory / WEIGHTS_FILE))
