"""A graph whose weights are more than one protobuf message holds: they lie in a file beside it.

The file is called as optimum, Text Embeddings Inference and transformers.js look for it, ``model.onnx_data`` beside ``model.onnx``. Only exports have one: a model
directory of this project holds one file of weights, so that nothing in it can point elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.models import onnx_graph
from recompress.models.onnx_graph import write_graph

if TYPE_CHECKING:
    import onnx
    import onnxruntime

SMALLEST = 1024
"""Bytes of a tensor that is worth moving: shapes and scalars stay in the graph, where tools look for them."""


def data_file(graph: Path) -> Path:
    """Where the weights of a graph lie, if they lie beside it."""
    return graph.with_name(f"{graph.name}_data")


def fits_one_file(model: onnx.ModelProto) -> bool:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= onnx_graph.LARGEST


def write_any_size(model: onnx.ModelProto, path: Path) -> None:
    """The graph in one file where that holds it, and with its weights beside it where not; ``model`` is then without them."""
    from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

    if not fits_one_file(model):
        convert_model_to_external_data(model, all_tensors_to_one_file=True, location=data_file(path).name, size_threshold=SMALLEST)
        write_external_data_tensors(model, str(path.parent))
    write_graph(model, path)
    if data_file(path).exists():
        data_file(path).chmod(path.stat().st_mode)  # onnx lets nobody else read it


@contextmanager
def session_of(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> Iterator[onnxruntime.InferenceSession]:
    """ONNX Runtime over a graph of any size that stands in memory, as long as the block runs."""
    import onnx
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if fits_one_file(model):
        yield onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        return
    with tempfile.TemporaryDirectory(prefix="recompress-graph-") as place:
        path = Path(place) / "model.onnx"
        write_any_size(model, path)
        yield onnxruntime.InferenceSession(str(path), options, providers=providers)
        onnx.load_external_data_for_model(model, place)
