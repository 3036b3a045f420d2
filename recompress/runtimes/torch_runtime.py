"""torch: 32-bit floats on the CPU, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from recompress.models.packed import packed_linears
from recompress.models.padding import padding_of
from recompress.records import Runtime as RuntimeName
from recompress.runtimes.asking import logits_of
from recompress.runtimes.batches import BATCH_SIZE, Batch, Feature, Part, in_order, in_parts
from recompress.runtimes.cutting import PACKED_TORCH, TORCH

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
        self.cost = PACKED_TORCH if any(not linear.is_laid_out for linear in packed_linears(network).values()) else TORCH
        self.positions = int(network.config.max_position_embeddings)
        self.lock = RLock()
        """Of the cache: one text is continued after another."""
        self._cache: Any = None

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "..."]]:
        return in_order(self.in_parts(features, batch_size))

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        return in_parts(features, self._run, self.pad_id, batch_size, self.cost)

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        """As ``recompress.runtimes.generation.Continues`` has it; of a decoder only."""
        from transformers import DynamicCache

        self._cache = DynamicCache()
        [*_, last] = self._read(tokens, kept=1)
        return np.asarray(last)

    def decode(self, token: int) -> Float[np.ndarray, " vocabulary"]:
        [*_, last] = self._read([token], kept=1)
        return np.asarray(last)

    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        return self._read(tokens, kept=len(tokens))

    def rewind(self, length: int) -> None:
        if (behind := self._cache.get_seq_length() - length) > 0:
            self._cache.crop(-behind)

    def _read(self, tokens: Sequence[int], kept: int) -> Float[np.ndarray, "kept vocabulary"]:
        with _pinned(self.threads), torch.inference_mode():
            answered = self.network(input_ids=torch.tensor([list(tokens)]), past_key_values=self._cache, use_cache=True, logits_to_keep=kept)
        logits: Float[np.ndarray, "kept vocabulary"] = answered.logits[0].numpy()
        return logits

    def _run(self, batch: Batch) -> Float[np.ndarray, "batch ..."]:
        with _pinned(self.threads), torch.inference_mode():  # and not around all batches: whoever takes their answers has his own
            logits: Float[np.ndarray, "batch ..."] = logits_of(self.network, {name: torch.from_numpy(values) for name, values in batch.items()}).numpy()
        return logits
