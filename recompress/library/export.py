"""A model for another runtime, proved there."""

from __future__ import annotations

from pathlib import Path

from recompress.export import Export
from recompress.export import export as write
from recompress.library.load import Model, load
from recompress.library.rows import Rows, examples_of


def export(model: str | Path | Model, folder: str | Path, *, to: str = "onnx", texts: Rows = ()) -> Export:
    """Write a model to a new ``folder`` for ``onnx``, ``transformers`` or ``openvino``, read it back there, and compare its answers on ``texts`` and random tokens.

    Raises ``InputError`` for a format that cannot hold the model or a folder that exists, and ``IntegrityError`` where the answers differ. Nothing is signed: a
    promoted version is exported by ``recompress export``.

    >>> recompress.export(small, "topics-onnx", to="onnx", texts=texts).agreement.texts
    8
    """
    source = load(model)
    return write(source.folder, Path(folder), to, examples=examples_of(source, texts, "texts"))
