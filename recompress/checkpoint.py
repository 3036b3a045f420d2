"""A model directory in, a model directory out.

A directory holds what transformers writes (``config.json``, ``model.safetensors``, the tokenizer's files), or ``model.onnx`` in the place of the weights,
and ``recompress.json``: the benchmark, the labels, the runtime, the steps, and whatever shape a transformers config cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.records import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INFO_FILE = "recompress.json"


@dataclass(frozen=True)
class Info:
    """What ``recompress.json`` says."""

    benchmark: str
    labels: tuple[str, ...]
    max_length: int
    runtime: Runtime = "torch"
    steps: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    """Attention heads kept in each layer, where that is not what the config says."""
    onnx: dict[str, Any] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """A model in memory: a transformers network on the torch runtime, or the path of an ONNX file on the ONNX runtime."""

    network: PreTrainedModel | Path
    tokenizer: PreTrainedTokenizerBase
    info: Info
