"""The folder of a model that runs on ONNX Runtime GenAI, as the library opens it: graph, ``genai_config.json`` and tokenizer, with its card."""

from __future__ import annotations

import shutil
from pathlib import Path

from recompress.errors import InputError
from recompress.export.format import Format, Reader, copy_text_files
from recompress.models.checkpoint import Info
from recompress.models.genai_config import GENAI_FILE, GRAPH_FILE

USAGE = """With `pip install onnxruntime-genai tokenizers`:

```python
import numpy, onnxruntime_genai, tokenizers

model = onnxruntime_genai.Model(".")
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
settings = onnxruntime_genai.GeneratorParams(model)
settings.set_search_options(max_length=256)
generator = onnxruntime_genai.Generator(model, settings)
generator.append_tokens(numpy.array(tokenizer.encode("…").ids, dtype=numpy.int32))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0).tolist()))
```

Its own `onnxruntime_genai.Tokenizer` reads `tokenizer.json` in a way of its own and cuts some texts otherwise (digits behind several spaces, for example); the model was
judged with the tokens above. `ORT_DISABLE_TELEMETRY=1`, set before Python starts, keeps the library from noting down what it is asked.
"""


def _check(directory: Path, info: Info) -> None:
    if info.runtime != "genai":
        raise InputError(
            f"{directory} is on the {info.runtime} runtime, and a graph with a cache is made anew; end the variant with onnx_genai or onnx_genai_nbits, so that it is judged"
        )


def _write(directory: Path, info: Info, target: Path) -> None:
    copy_text_files(directory, info, target)
    for name in (GRAPH_FILE, GENAI_FILE):
        shutil.copyfile(directory / name, target / name)


def _reader(target: Path, info: Info) -> Reader:
    from recompress.runtimes.genai_runtime import GenaiRuntime

    return GenaiRuntime(target / GRAPH_FILE, info, threads=1).logits


FORMAT = Format(_check, _write, _reader, close=lambda _: 1e-6, usage=USAGE)
