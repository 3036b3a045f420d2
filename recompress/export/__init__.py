"""Files that other runtimes serve. Each folder is read back by the runtime that it is for, and has to answer as the model that was judged.

| ``to`` | what is written | who reads it |
|---|---|---|
| ``onnx`` | ``onnx/model.onnx``, or ``onnx/model_quantized.onnx`` in 8 or fewer bits; tokenizer and config beside | transformers.js, Text Embeddings Inference, optimum, ONNX Runtime |
| ``transformers`` | ``model.safetensors``, tokenizer and config | plain ``from_pretrained`` |
| ``openvino`` | ``openvino_model.xml`` and ``.bin``, tokenizer and config | OpenVINO, optimum-intel |
| ``gguf`` | ``model.gguf`` of a model that was judged on llama.cpp, tokenizer inside | llama.cpp and what is built on it |
| ``compressed-tensors`` | ``model.safetensors`` with packed weights, the very codes that were judged; tokenizer and config | ``from_pretrained`` with that library, vLLM |
| ``genai`` | ``model.onnx`` and ``genai_config.json`` of a model that was judged on ONNX Runtime GenAI, tokenizer beside | ONNX Runtime GenAI |
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress import CallableRoom
from recompress.benchmarks import Example
from recompress.errors import InputError
from recompress.export import compressed_tensors_folder, genai_folder, gguf_folder, onnx_folder, openvino_folder, transformers_folder
from recompress.export.answers import Agreement, compare
from recompress.export.card import card
from recompress.export.format import Format
from recompress.export.seal import Exported, check_export, seal
from recompress.integrity.atomic_directory import new_directory, refuse_existing
from recompress.models.checkpoint import read_info, reads_segments
from recompress.models.tokenizer import read_tokenizer
from recompress.settings.file import unknown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["FORMATS", "Agreement", "Exported", "check_asked", "check_export", "export"]
FORMATS: Mapping[str, Format] = {
    "onnx": onnx_folder.FORMAT,
    "transformers": transformers_folder.FORMAT,
    "openvino": openvino_folder.FORMAT,
    "gguf": gguf_folder.FORMAT,
    "compressed-tensors": compressed_tensors_folder.FORMAT,
    "genai": genai_folder.FORMAT,
}


@dataclass(frozen=True)
class Export:
    """What was written and how it answers."""

    folder: str
    to: str
    agreement: Agreement
    manifest_sha256: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def export(
    directory: Path,
    target: Path,
    to: str,
    *,
    examples: Sequence[Example] = (),
    facts: Mapping[str, str] | None = None,
    key: Ed25519PrivateKey | None = None,
) -> Export:
    """Write the model in ``directory`` to a new folder ``target`` in another format, whole or not at all.

    ``examples`` are asked of both besides random tokens; ``facts`` stand in the folder's card; with ``key`` the list of files is signed.
    Raises ``InputError`` for an unknown format, a model that the format cannot hold, or a ``target`` that exists, and ``IntegrityError`` where the runtime that
    the folder is for answers otherwise than the model.
    """
    check_asked(target, to)
    shape, info = FORMATS[to], read_info(directory)
    if info.cache is not None:
        raise InputError(f"{directory} keeps keys and values in {info.cache.bits} bits, which nothing that reads {to} does; export a variant without kv_cache")
    shape.check(directory, info)
    with new_directory(target) as place:
        shape.write(directory, info, place)
        agreement = compare(directory, shape.reader(place, info), examples, close=shape.close(info), why_apart=shape.why_apart(info))
        side = str(read_tokenizer(directory)[1].get("truncation_side", "right"))
        told = card(shape, info, agreement, facts or {}, side=side, segments=reads_segments(directory, info), notes=shape.notes(directory, place))
        (place / "README.md").write_text(told, encoding="utf-8")
        digest = seal(place, to, facts or {}, key)
    return Export(str(target), to, agreement, digest)


def check_asked(target: Path, to: str) -> None:
    """What can be refused before anything is read: an unknown format, and a target that exists. Raises ``InputError``."""
    if to not in FORMATS:
        raise InputError(unknown("format", to, FORMATS, "--to"))
    refuse_existing(target)


sys.modules[__name__].__class__ = CallableRoom
