"""Models that are one file for a runtime of its own: an ONNX graph, or a GGUF file. Where such a file lies, whether it is whole, and how many numbers it holds.

A graph for ONNX Runtime GenAI has a small file beside it that says what its inputs are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from recompress.errors import InputError, IntegrityError
from recompress.models.genai_config import GENAI_FILE, GRAPH_FILE
from recompress.models.gguf import GGUF_FILE
from recompress.records import Runtime

FILES: Mapping[Runtime, str] = {"onnx": GRAPH_FILE, "gguf": GGUF_FILE, "genai": GRAPH_FILE}
"""The file of a model directory that holds its weights, by its runtime."""
BESIDE: Mapping[Runtime, tuple[str, ...]] = {"genai": (GENAI_FILE,)}
"""What else a runtime reads there."""
WHAT = {".onnx": "an ONNX graph", ".gguf": "a GGUF file"}


def check_file(path: Path) -> None:
    """Raises ``InputError`` when the file is missing and ``IntegrityError`` when it is cut off or broken."""
    if path.suffix == ".onnx":
        from recompress.models.onnx_graph import check_graph

        check_graph(path)
        return
    from recompress.integrity.gguf_layout import check_layout

    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        with path.open("rb") as stream:
            check_layout(stream, path.stat().st_size)
    except ValueError as error:
        raise IntegrityError(f"{path} is cut off or broken: {error}") from None


def numbers_in_file(path: Path) -> int:
    """Numbers stored in the weights; scales and zero points do not count."""
    if path.suffix == ".onnx":
        from recompress.models.onnx_graph import numbers_in, read_graph

        return numbers_in(read_graph(path))
    from recompress.integrity.gguf_layout import check_layout

    with path.open("rb") as stream:
        return sum(prod(tensor.dimensions) for tensor in check_layout(stream, path.stat().st_size))
