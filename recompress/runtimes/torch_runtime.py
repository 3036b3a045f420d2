"""torch: 32-bit floats on the CPU, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from recompress.models.cache_bits import CacheBits
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

    def __init__(self, network: PreTrainedModel, threads: int, cache: CacheBits | None = None) -> None:
        self.network: Any = network.eval()
        self.threads = threads
        self.cache_bits = cache
        """How keys and values are kept, where not as they are: for all that is asked of the network, whether it writes or not."""
        self.pad_id = padding_of(network)
        self.cost = PACKED_TORCH if any(not linear.is_laid_out for linear in packed_linears(network).values()) else TORCH
        self.positions = int(network.config.max_position_embeddings)
        self.lock = RLock()
        """Of the cache: one text is continued after another."""
        self.cache: Any = None
        """Keys and values of the text that is continued."""
        self._tokens: list[int] = []
        """What is in it."""

    def logits(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> list[Float[np.ndarray, "..."]]:
        return in_order(self.in_parts(features, batch_size))

    def in_parts(self, features: Sequence[Feature], batch_size: int = BATCH_SIZE) -> Iterator[Part]:
        if self.cache_bits is not None:
            batch_size = 1  # the last digits of a sum decide which code is the nearest, and they are others in company
        return in_parts(features, self._run, self.pad_id, batch_size, self.cost)

    def prefill(self, tokens: Sequence[int], room: int) -> Float[np.ndarray, " vocabulary"]:
        """As ``recompress.runtimes.generation.Continues`` has it; of a decoder only."""
        self.cache, self._tokens = self._empty_cache(), []
        [*_, last] = self._read(tokens, kept=1)
        return np.asarray(last)

    def decode(self, token: int) -> Float[np.ndarray, " vocabulary"]:
        [*_, last] = self._read([token], kept=1)
        return np.asarray(last)

    def read_on(self, tokens: Sequence[int]) -> Float[np.ndarray, "tokens vocabulary"]:
        return self._read(tokens, kept=len(tokens))

    def rewind(self, length: int) -> None:
        if (behind := len(self._tokens) - length) <= 0:
            return
        if self.cache_bits is None or self.cache.can_end_at(length):
            self.cache.crop(-behind)
            del self._tokens[length:]
        else:  # what should be seen as it is has been rounded
            again = self._tokens[:length]
            self.cache, self._tokens = self._empty_cache(), []
            if again:
                self._read(again, kept=1)

    def _empty_cache(self) -> Any:
        from transformers import DynamicCache

        if self.cache_bits is None:
            return DynamicCache()
        from recompress.runtimes.rounded_cache import RoundedCache

        return RoundedCache(self.network, self.cache_bits)

    def _read(self, tokens: Sequence[int], kept: int) -> Float[np.ndarray, "kept vocabulary"]:
        with _pinned(self.threads), torch.inference_mode():
            logits: Float[np.ndarray, "kept vocabulary"] = self._read_on(self.cache, torch.tensor([list(tokens)]), kept)[0].numpy()
        self._tokens += tokens
        return logits

    def _read_on(self, cache: Any, tokens: Int[torch.Tensor, "batch length"], kept: int) -> Float[torch.Tensor, "batch kept vocabulary"]:
        """The logits behind the last ``kept`` tokens. What sees the same tokens rounded is read at once."""
        length = tokens.shape[1]
        parts = [length] if self.cache_bits is None else list(self.cache_bits.parts(cache.get_seq_length(), length))
        answers, start = [], 0
        for part in torch.split(tokens, parts, dim=1):
            wanted = max(0, start + part.shape[1] - max(start, length - kept))
            answered = self.network(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=max(1, wanted)).logits
            answers += [answered] if wanted else []
            start += part.shape[1]
        return answers[0] if len(answers) == 1 else torch.cat(answers, dim=1)

    def _run(self, batch: Batch) -> Float[np.ndarray, "batch ..."]:
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        with _pinned(self.threads), torch.inference_mode():  # and not around all batches: whoever takes their answers has his own
            if self.cache_bits is None or tensors["input_ids"].shape[1] == 0:
                logits: Float[np.ndarray, "batch ..."] = logits_of(self.network, tensors).numpy()
            else:
                logits = self._read_on(self._empty_cache(), tensors["input_ids"], tensors["input_ids"].shape[1]).numpy()
        return logits
