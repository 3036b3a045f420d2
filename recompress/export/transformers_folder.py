"""What plain ``from_pretrained`` reads: possible where the config can say the shape of the network, and nothing in it is packed, factored or shared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.export.format import Format, Reader, copy_text_files
from recompress.models.checkpoint import WEIGHTS_FILE, Info
from recompress.models.files import quiet_transformers, read_tensors
from recompress.models.heads import head_of
from recompress.models.tokenizer import AWKWARD, load_tokenizer
from recompress.runtimes import Feature
from recompress.runtimes.asking import logits_of
from recompress.runtimes.batches import inputs_of

USAGE = """```python
from transformers import {auto_class}, AutoTokenizer

model, tokenizer = {auto_class}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")
```
"""
DRAWN = 32
"""Texts of tokens that are drawn, of as many lengths, on which two tokenizers are compared."""
ODD = {
    "heads": "heads of its layers",
    "neurons": "neurons of its layers",
    "groups": "key and value heads",
    "head_size": "size of its heads",
    "shares": "shared layers",
}


def _check(directory: Path, info: Info) -> None:
    if info.runtime != "torch":
        other = {"packed": "compressed-tensors", "gguf": "gguf", "genai": "genai"}.get(info.runtime, "onnx")
        raise InputError(f"{directory} is on the {info.runtime} runtime, which plain transformers does not read; export it --to {other}")
    for name, what in ODD.items():
        if getattr(info, name):
            raise InputError(f"a config of transformers cannot say the {what} of {directory}, so from_pretrained would read another model; export it --to onnx")
    if factored := next((name for name in read_tensors(directory / WEIGHTS_FILE) if name.endswith((".first.weight", ".second.weight"))), None):
        raise InputError(f"{directory} holds factors ({factored}), for which transformers has no place; export it --to onnx")


def _write(directory: Path, info: Info, target: Path) -> None:
    copy_text_files(directory, info, target)
    shutil.copyfile(directory / WEIGHTS_FILE, target / WEIGHTS_FILE)


def _reader(target: Path, info: Info) -> Reader:
    return asking(read_back(target, info, "export it --to onnx"))


def _check_tokens(target: Path, way_out: str) -> None:
    """Raises ``InputError``, which ends with the ``way_out``, where plain transformers makes another tokenizer of the folder than its ``tokenizer.json`` says: for some
    families it takes the class that it knows them by."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        theirs = AutoTokenizer.from_pretrained(target, local_files_only=True, trust_remote_code=False)
    ours, draw = load_tokenizer(target), np.random.default_rng(0)
    drawn = [ours.decode(draw.integers(0, len(ours), length).tolist()) for length in range(2, 2 + DRAWN)]
    for text in (*AWKWARD, *drawn):
        if ours(text, verbose=False)["input_ids"] != theirs(text, verbose=False)["input_ids"]:
            raise InputError(
                f"plain transformers reads the tokenizer of {target.name} as a {type(theirs).__name__}, which cuts {text[:40]!r} otherwise; {way_out}"
            )


def read_back(target: Path, info: Info, way_out: str) -> Any:
    """The network by plain ``from_pretrained``, in 32-bit floats. Raises ``InputError``, which ends with the ``way_out``, where it has no place for a tensor or lacks one,
    and where it would be asked with other tokens."""
    import torch

    _check_tokens(target, way_out)
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    with quiet_transformers():
        network, loading = head_of(info.benchmark).auto_model().from_pretrained(target, dtype=torch.float32, **options)
    wrong = sorted([*loading["missing_keys"], *loading["unexpected_keys"], *map(str, loading["mismatched_keys"])])
    if wrong:
        raise InputError(f"plain transformers cannot read {target.name}: {wrong[0]} has no place in the network of its config; {way_out}")
    return network


def asking(network: Any) -> Reader:
    """Asks a network, one text at a time."""
    import torch

    def answer(features: Sequence[Feature]) -> list[Float[np.ndarray, "..."]]:
        with torch.inference_mode():
            return [logits_of(network, {name: torch.tensor([row]) for name, row in inputs_of(feature).items()})[0].numpy() for feature in features]

    return answer


FORMAT = Format(_check, _write, _reader, close=lambda _: 1e-5, usage=USAGE)
