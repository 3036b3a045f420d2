"""torch: 32-bit floats on the CPU, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from recompress.models.padding import padding_of
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.asking import logits_of
from recompress.runtimes.batches import BATCH_SIZE, Batch, Feature, answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """The number of threads belongs to the whole process: it is set for a call and given back, so that a training that goes on keeps its own."""
    usual = torch.get_num_threads()
    if usual != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if usual != threads:
            torch.set_num_threads(usual)


class TorchRuntime:
    """A transformers network in evaluation mode."""

    name: RuntimeName = "torch"

    def __init__(self, network: PreTrainedModel, threads: int) -> None:
        self.network: Any = network.eval()
        self.threads = threads
        self.pad_id = padding_of(network)

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "..."]]:
        with _pinned(self.threads), torch.inference_mode():
            return answer(features, self._run, self.pad_id, batch_size)

    def _run(self, batch: Batch) -> Float[np.ndarray, "batch ..."]:
        logits: Float[np.ndarray, "batch ..."] = logits_of(self.network, {name: torch.from_numpy(values) for name, values in batch.items()}).numpy()
        return logits
