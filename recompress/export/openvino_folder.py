"""OpenVINO's own files, named as optimum-intel looks for them. The graph is read from ONNX and kept in full precision; nothing is sent anywhere while it is made."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError, IntegrityError
from recompress.export import onnx_folder
from recompress.export.format import Format, Reader, copy_text_files, one_by_one
from recompress.models.checkpoint import Info
from recompress.models.onnx_graph import read_graph, write_graph
from recompress.runtimes import Feature
from recompress.runtimes.batches import one_answer
from recompress.runtimes.nbits import settle_tables

XML = "openvino_model.xml"
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Floats as floats, where OpenVINO would round them to fewer bits on some processors, and inputs of packed matrices as they are."""
USAGE = """```python
import unicodedata

import openvino, tokenizers

model = openvino.Core().compile_model("openvino_model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}})
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
{lines}```
"""


def _check(directory: Path, info: Info) -> None:
    if find_spec("openvino") is None:
        raise InputError("OpenVINO is not installed; pip install 'recompress[openvino]'")
    onnx_folder.FORMAT.check(directory, info)


def _write(directory: Path, info: Info, target: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory(prefix="recompress-openvino-") as place:
        onnx_folder.FORMAT.write(directory, info, Path(place))
        path = Path(place) / onnx_folder.FOLDER / onnx_folder.graph_name(info)
        if path.name == onnx_folder.QUANTIZED:
            graph = read_graph(path)
            if any(node.op_type == "GatherBlockQuantized" and len(node.input) > 3 for node in graph.graph.node):
                raise InputError(
                    f"{directory} has packed token embeddings with zero points, in which OpenVINO cannot look up; pack them with symmetric: true, or export it --to onnx"
                )
            settle_tables(graph)
            write_graph(graph, path)
        try:
            model = openvino.Core().read_model(str(path))
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the graph of {directory}: {_reason(error)}; export it --to onnx") from None
        copy_text_files(directory, info, target)
        openvino.save_model(model, str(target / XML), compress_to_fp16=False)


def _reader(target: Path, info: Info) -> Reader:
    import openvino

    try:
        model = openvino.Core().compile_model(str(target / XML), "CPU", EXACT)
    except RuntimeError as error:
        raise IntegrityError(f"OpenVINO cannot run what was written: {_reason(error)}; export it --to onnx") from None
    names = [given.get_any_name() for given in model.inputs]

    def answer(features: Sequence[Feature]) -> list[Float[np.ndarray, "..."]]:
        return [one_answer([np.array(output) for output in model(given).values()])[0] for given in one_by_one(features, names)]

    return answer


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says last: before it stand the places of its own code that an error went through."""
    return [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")][-1][:200]


def _close(info: Info) -> float:
    """ONNX Runtime rounds what goes into matrices of few bits to 8 bits, OpenVINO does not, so that such models differ by more than another order of sums."""
    return 1e-2 if "onnx_nbits" in info.steps else 1e-3


def _why_apart(info: Info) -> str:
    """Both multiply the same codes, but a value that lies between two codes goes either way with the last bit of a sum, and the layers above pass that on: on an
    encoder of six layers a logit differs by 0.015 of the largest in the median text, and 3 decisions of 100 with it."""
    return (
        "in 8 bits OpenVINO rounds values that lie between two codes otherwise; export it --to onnx, or a model in floats --to openvino"
        if info.onnx.get("int8")
        else ""
    )


FORMAT = Format(_check, _write, _reader, close=_close, usage=USAGE, ask="model({given}).values()", why_apart=_why_apart)
