"""What runs a model: torch, or ONNX Runtime, its GenAI or llama.cpp, which need neither torch nor transformers.

    runtime = open_runtime(directory, threads=1)
    logits = runtime.logits(features)

Padding, attention masks and batches are the runtime's own business; so is the number of threads, which is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.models.one_file import FILES
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.batches import BATCH_SIZE, Feature, Part

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint, Info

__all__ = ["BATCH_SIZE", "Feature", "Runtime", "open_runtime", "runtime_of"]


class Runtime(Protocol):
    """A model that is ready to answer."""

    name: RuntimeName
    threads: int

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "..."]]:
        """For each feature, in the given order: ``[length, labels]`` for token classification, ``[labels]`` for text classification."""

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        """The same as it is computed: positions in ``features``, and the logits there."""


def open_runtime(directory: Path, threads: int = 1) -> Runtime:
    """The runtime that serves a model directory. Raises ``InputError`` and ``IntegrityError`` as ``recompress.models.checkpoint.load`` does."""
    from recompress.models.checkpoint import load, read_info

    _check_threads(threads)
    info = read_info(directory)
    if info.runtime in FILES:
        return _of_file(directory / FILES[info.runtime], info, threads)
    return runtime_of(load(directory, answering=True), threads)


def runtime_of(checkpoint: Checkpoint, threads: int = 1) -> Runtime:
    """The runtime of a model in memory. Networks are put into evaluation mode."""
    _check_threads(threads)
    if isinstance(checkpoint.network, Path):
        return _of_file(checkpoint.network, checkpoint.info, threads)
    from recompress.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime(checkpoint.network, threads, checkpoint.info.cache)


def _of_file(path: Path, info: Info, threads: int) -> Runtime:
    if path.suffix == ".gguf":
        from recompress.runtimes.gguf_runtime import GgufRuntime

        return GgufRuntime(path, info, threads)
    if info.runtime == "genai":
        from recompress.runtimes.genai_runtime import GenaiRuntime

        return GenaiRuntime(path, info, threads)
    from recompress.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(path.parent, info, threads)


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise InputError(f"threads is at least 1, got {threads}")
