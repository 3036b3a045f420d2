"""A model for another runtime, proved there."""

from __future__ import annotations

from pathlib import Path

from recompress.errors import InputError
from recompress.export import FORMATS, Export
from recompress.export import export as write
from recompress.library.load import Model, load, path_of
from recompress.library.rows import Rows, examples_of


def export(model: str | Path | Model, folder: str | Path, *, to: str = "onnx", texts: Rows = ()) -> Export:
    """Write a model to a new ``folder``, read it back by the runtime that it is for, and compare its answers on ``texts`` and random tokens. ``to`` is ``onnx``,
    ``transformers``, ``openvino``, ``gguf`` or ``compressed-tensors``.

    Raises ``InputError`` for a format that cannot hold the model or a folder that exists, and ``IntegrityError`` where the answers differ. Nothing is signed: a
    promoted version is exported by ``recompress export``.

    >>> recompress.export(small, "topics-onnx", to="onnx", texts=texts).agreement.texts
    8
    """
    if not isinstance(to, str):
        raise InputError(f"to should be the name of a format, got {to!r}; give one of {', '.join(FORMATS)}")
    source, target = load(model), path_of(folder, "folder")
    return write(source.folder, target, to, examples=examples_of(source, texts, "texts"))
