"""The GGUF file of a model that runs on llama.cpp, alone with its card: tokenizer and chat template are in the file."""

from __future__ import annotations

import shutil
from pathlib import Path

from recompress.errors import InputError
from recompress.export.format import Format, Reader
from recompress.models.checkpoint import Info
from recompress.models.gguf import GGUF_FILE

USAGE = """With llama.cpp: `llama-cli -m model.gguf`, or `llama-server -m model.gguf` for a server with OpenAI's interface.

With `pip install xllamacpp`:

```python
import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = "model.gguf"
server = xllamacpp.Server(settings)
answer = server.handle_completions({{"prompt": "…", "max_tokens": 64, "temperature": 0}})
```
"""


def _check(directory: Path, info: Info) -> None:
    if info.runtime != "gguf":
        raise InputError(
            f"{directory} is on the {info.runtime} runtime, and a GGUF file is rounded anew; end the variant with gguf or gguf_nbits, so that it is judged"
        )


def _write(directory: Path, info: Info, target: Path) -> None:
    shutil.copyfile(directory / GGUF_FILE, target / GGUF_FILE)


def _reader(target: Path, info: Info) -> Reader:
    from recompress.runtimes.gguf_runtime import GgufRuntime

    return GgufRuntime(target / GGUF_FILE, info, threads=1).logits


FORMAT = Format(_check, _write, _reader, close=lambda _: 1e-6, usage=USAGE)
