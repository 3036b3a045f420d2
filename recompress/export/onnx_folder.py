"""The layout that transformers.js, Text Embeddings Inference and optimum read: the graph below ``onnx/``, config and tokenizer beside it.

A graph whose weights have 8 bits or fewer is ``model_quantized.onnx``, what transformers.js asks for with ``dtype: "q8"``; one in full precision ``model.onnx``.
Where the weights are more than one file holds, they lie beside it in ``model.onnx_data``, and the config says so for transformers.js.
It is read back with ONNX Runtime and ``tokenizers`` alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.export.format import Format, Reader, copy_text_files, edit_config, one_by_one
from recompress.models.checkpoint import ONNX_FILE, Info, load
from recompress.models.onnx_data import data_file, write_any_size
from recompress.runtimes import Feature
from recompress.runtimes.batches import one_answer

FOLDER, PLAIN, QUANTIZED = "onnx", "model.onnx", "model_quantized.onnx"
USAGE = """With transformers.js: `pipeline("{task}", "FOLDER OR REPOSITORY", {{ dtype: "{dtype}" }})`.

With ONNX Runtime and nothing but `tokenizers`:

```python
import unicodedata

import onnxruntime, tokenizers

session = onnxruntime.InferenceSession("onnx/{file}")
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
{lines}```
"""


def graph_name(info: Info) -> str:
    return QUANTIZED if info.runtime == "onnx" and (info.onnx.get("int8") or "onnx_nbits" in info.steps) else PLAIN


def _check(directory: Path, info: Info) -> None:
    if info.runtime == "packed":
        raise InputError(f"{directory} has packed weights, which no ONNX graph can hold; end the variant with onnx_nbits to serve few bits with ONNX Runtime")
    if info.runtime == "gguf":
        raise InputError(f"{directory} is a GGUF file, which llama.cpp serves as it is; export it --to gguf")
    if info.runtime == "genai":
        raise InputError(f"{directory} is a graph with a cache, which ONNX Runtime GenAI serves as it is; export it --to genai")


def _write(directory: Path, info: Info, target: Path) -> None:
    copy_text_files(directory, info, target)
    (target / FOLDER).mkdir()
    place = target / FOLDER / graph_name(info)
    if info.runtime == "onnx":
        shutil.copyfile(directory / ONNX_FILE, place)
    else:
        from recompress.runtimes.export import export_graph

        checkpoint = load(directory)
        write_any_size(export_graph(checkpoint.torch_network, one_file=False, segments=checkpoint.reads_segments), place)
    if data_file(place).exists():
        edit_config(target, {"transformers.js_config": {"use_external_data_format": {place.name: 1}}})


def _reader(target: Path, info: Info) -> Reader:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(target / FOLDER / graph_name(info)), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def answer(features: Sequence[Feature]) -> list[Float[np.ndarray, "..."]]:
        return [one_answer(session.run(None, given))[0] for given in one_by_one(features, names)]

    return answer


FORMAT = Format(_check, _write, _reader, close=lambda _: 1e-4, usage=USAGE, ask="session.run(None, {given})")
