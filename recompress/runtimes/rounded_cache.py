"""A cache of keys and values in few bits: keys by channel, in groups of tokens, values by token, in groups of channels; the last tokens as they are.

    keys    [batch, heads, tokens, channels]:   a step for each channel of each G tokens            values: a step for each G channels of each token

Keys have channels that are large for all tokens, values have none, so that each is rounded along what is alike. Numbers are stored as codes and turned into floats one
layer at a time, whenever it is read. A group is rounded when R tokens stand behind it (``recompress.models.cache_bits``), values too, where the paper rounds one token's
values as the next one comes; and what is read of a prompt is seen rounded as what is written is, where the paper reads prompts as they are: so an answer does not
depend on how a text was cut into calls, and what is judged by reading is what is served by writing.
Source: Liu et al. 2024 (KIVI), arXiv:2402.02750, section 3.2 and algorithm 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from recompress.models.cache_bits import CacheBits
from recompress.models.packed.ranges import Ranges, in_ranges, joined, out_of_ranges

if TYPE_CHECKING:
    from transformers import PreTrainedModel

States = Float[Tensor, "batch heads tokens channels"]


def round_keys(keys: States, form: CacheBits) -> Ranges:
    """Of one group of tokens: a row for each channel."""
    return in_ranges(keys.transpose(2, 3).reshape(-1, form.group), form.bits)


def round_values(values: States, form: CacheBits) -> Ranges:
    """Of one group of tokens: a row for each of a token's groups of channels."""
    return in_ranges(values.reshape(-1, form.group), form.bits)


def keys_of(stored: Ranges, form: CacheBits, shape: tuple[int, int, int]) -> States:
    """What the codes of all groups stand for; ``shape``: batch, heads and channels."""
    batch, heads, channels = shape
    rows = out_of_ranges(stored, form.bits, form.group).view(-1, batch, heads, channels, form.group)
    return rows.permute(1, 2, 0, 4, 3).reshape(batch, heads, -1, channels)


def values_of(stored: Ranges, form: CacheBits, shape: tuple[int, int, int]) -> States:
    """What the codes of all groups stand for; ``shape``: batch, heads and channels."""
    batch, heads, channels = shape
    rows = out_of_ranges(stored, form.bits, form.group).view(-1, batch, heads, form.group, channels)
    return rows.permute(1, 2, 0, 3, 4).reshape(batch, heads, -1, channels)


class RoundedLayer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of one layer: those of the last tokens are the cache's own, as they are, those of the tokens before lie in codes."""

    def __init__(self, form: CacheBits) -> None:
        super().__init__()
        self.keys: Any = None
        self.values: Any = None
        self.form, self.rounded = form, 0
        self.coded: tuple[Ranges, Ranges] | None = None

    def update(self, key_states: States, value_states: States, *args: Any, **kwargs: Any) -> tuple[States, States]:
        """Everything as the new tokens see it, they themselves last. All of them must see the same tokens rounded, as those of ``CacheBits.parts`` do."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        read = self.get_seq_length()
        while self.rounded < self.form.rounded(read + 1):
            self._round()
        assert self.form.rounded(read + key_states.shape[-2]) == self.rounded, "these tokens see different pasts"
        self.keys, self.values = torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)
        if self.coded is None:
            return self.keys, self.values
        shape = (key_states.shape[0], key_states.shape[1], key_states.shape[3])
        keys, values = keys_of(self.coded[0], self.form, shape), values_of(self.coded[1], self.form, shape)
        return torch.cat([keys, self.keys], dim=-2), torch.cat([values, self.values], dim=-2)

    def _round(self) -> None:
        group = self.form.group
        new = round_keys(self.keys[:, :, :group], self.form), round_values(self.values[:, :, :group], self.form)
        self.coded = new if self.coded is None else (joined(self.coded[0], new[0]), joined(self.coded[1], new[1]))
        self.keys, self.values = self.keys[:, :, group:], self.values[:, :, group:]
        self.rounded += group

    def get_seq_length(self) -> int:
        exact: int = super().get_seq_length()
        rounded: int = self.rounded
        return rounded + exact

    @property
    def size_bytes(self) -> int:
        """Codes with their steps, and the numbers that are kept as they are."""
        exact: list[Tensor] = [self.keys, self.values] if self.is_initialized else []
        return sum(tensor.numel() * tensor.element_size() for tensor in exact) + sum(ranges.size_bytes for ranges in self.coded or ())


class RoundedCache(Cache):  # type: ignore[misc]
    """All layers of a network."""

    def __init__(self, network: PreTrainedModel, form: CacheBits) -> None:
        super().__init__(layers=[RoundedLayer(form) for _ in range(network.config.num_hidden_layers)])
        self.form = form

    def can_end_at(self, length: int) -> bool:
        """Whether what comes behind the first ``length`` tokens sees no token rounded that it should see as it is."""
        return bool(self.layers[0].rounded <= self.form.rounded(length + 1))

    @property
    def size_bytes(self) -> int:
        total: int = sum(layer.size_bytes for layer in self.layers)
        return total
