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
from recompress.export.format import Format, Reader
from recompress.models.checkpoint import Info
from recompress.models.files import first_line
from recompress.runtimes import Feature

XML = "openvino_model.xml"
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Floats as floats, where OpenVINO would round them to fewer bits on some processors, and inputs of packed matrices as they are."""
USAGE = """```python
import openvino, tokenizers

model = openvino.Core().compile_model("openvino_model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}})
ids = tokenizers.Tokenizer.from_file("tokenizer.json").encode("…").ids
logits = model({{"input_ids": [ids], "attention_mask": [[1] * len(ids)]}})[0]
```
"""


def _check(directory: Path, info: Info) -> None:
    if find_spec("openvino") is None:
        raise InputError("OpenVINO is not installed; pip install 'recompress[openvino]'")
    onnx_folder.FORMAT.check(directory, info)


def _write(directory: Path, info: Info, target: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory(prefix="recompress-openvino-") as place:
        onnx_folder.FORMAT.write(directory, info, Path(place))
        try:
            model = openvino.Core().read_model(str(Path(place) / onnx_folder.FOLDER / onnx_folder.graph_name(info)))
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the graph of {directory}: {first_line(error)}; export it --to onnx") from None
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (target / file).write_bytes((Path(place) / file).read_bytes())
        openvino.save_model(model, str(target / XML), compress_to_fp16=False)


def _reader(target: Path, info: Info) -> Reader:
    import openvino

    try:
        model = openvino.Core().compile_model(str(target / XML), "CPU", EXACT)
    except RuntimeError as error:
        raise IntegrityError(f"OpenVINO cannot run what was written: {first_line(error)}; export it --to onnx") from None
    names = {given.get_any_name() for given in model.inputs}

    def answer(features: Sequence[Feature]) -> list[Float[np.ndarray, "..."]]:
        batches = [{"input_ids": np.array([f["input_ids"]]), "attention_mask": np.ones((1, len(f["input_ids"])), dtype=np.int64)} for f in features]
        return [np.array(model({name: batch[name] for name in names})[0][0]) for batch in batches]

    return answer


CLOSE = 1e-2
"""ONNX Runtime rounds what goes into matrices of few bits to 8, OpenVINO does not; full precision and int8 agree a hundred times closer."""
FORMAT = Format(_check, _write, _reader, close=CLOSE, usage=USAGE)
