"""Keys and values in few bits: by hand against attention that is told for each token what it sees; read at once, in parts, written, and gone back, it is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from recompress.models.cache_bits import CacheBits
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of
from recompress.runtimes.generation import following
from recompress.runtimes.rounded_cache import RoundedCache, keys_of, round_keys, round_values, values_of
from tests.six import DECODERS, LENGTH, checkpoint_of

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = [(7 * i) % 200 + 5 for i in range(45)]
FORM = CacheBits(2, 8, 4)
"""Bits so few that whatever is rounded otherwise is seen."""


def keeping(family: str, form: CacheBits | None = FORM, **changes: Any) -> Checkpoint:
    checkpoint = checkpoint_of(family, **changes)
    return replace(checkpoint, info=replace(checkpoint.info, cache=form))


def at_once(runtime: Any, tokens: list[int] = TOKENS) -> Any:
    return runtime.logits([{"input_ids": tokens, "attention_mask": [1] * len(tokens)}])[0]


def by_row(numbers: Tensor, bits: int) -> Tensor:
    """One row, one number at a time, with the least number and the step in 16 bits."""
    low = float(numbers.min().half())
    step = float(((numbers.max() - numbers.min()) / (2**bits - 1)).half())
    return torch.tensor([low + step * min(2**bits - 1, max(0, round((float(x) - low) / step))) for x in numbers])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_keys_by_channel_and_values_by_token(bits: Any) -> None:
    form = CacheBits(bits, 8, 1)
    states = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    states[..., 3] += 20
    keys = keys_of(round_keys(states, form), form, (2, 3, 16))
    values = values_of(round_values(states, form), form, (2, 3, 16))
    for batch in range(2):
        for head in range(3):
            for channel in range(16):
                torch.testing.assert_close(keys[batch, head, :, channel], by_row(states[batch, head, :, channel], bits), atol=1e-5, rtol=1e-6)
            for token in range(8):
                wanted = torch.cat([by_row(part, bits) for part in states[batch, head, token].split(8)])  # type: ignore[no-untyped-call]
                torch.testing.assert_close(values[batch, head, token], wanted, atol=1e-5, rtol=1e-6)
    assert float((keys - states)[..., :3].abs().max()) < float((values - states)[..., :3].abs().max()), "a channel that is large spoils no other of the keys"


class Seen(DynamicCache):  # type: ignore[misc]
    """All keys and values as they are; what attention is given is what the one token that is read sees of them by the rule, spelled out."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert key_states.shape[2] == 1
        keys, values = (states.clone() for states in super().update(key_states, value_states, layer_idx, *args, **kwargs))
        read = keys.shape[2]
        for start in range(0, read, FORM.group):
            if start + FORM.group + FORM.residual <= read:
                part = slice(start, start + FORM.group)
                for head in range(keys.shape[1]):
                    for channel in range(keys.shape[3]):
                        keys[0, head, part, channel] = by_row(keys[0, head, part, channel], FORM.bits)
                    for token in range(start, start + FORM.group):
                        values[0, head, token] = torch.cat([by_row(few, FORM.bits) for few in values[0, head, token].split(FORM.group)])
        return keys, values


@pytest.mark.parametrize("family", DECODERS)
def test_each_token_sees_what_the_rule_says(family: str) -> None:
    checkpoint, cache, wanted = keeping(family), Seen(), []
    network: Any = checkpoint.torch_network
    with torch.inference_mode():
        for token in TOKENS:
            wanted.append(network(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1].numpy())
    given = at_once(runtime_of(checkpoint))
    np.testing.assert_allclose(given, np.stack(wanted), atol=2e-5)
    exact = at_once(runtime_of(keeping(family, None)))
    free = FORM.residual + FORM.group - 1
    np.testing.assert_allclose(given[:free], exact[:free], atol=2e-5)
    assert (np.abs(given[free:] - exact[free:]).max(axis=-1) > 1e-3).all(), "the rule is not seen in the answers"


@pytest.mark.parametrize("family", DECODERS)
def test_however_a_text_is_read_its_answers_are_the_same(family: str) -> None:
    runtime: Any = runtime_of(keeping(family))
    whole = at_once(runtime)
    for first in (1, 11, 12, 30):
        steps = [runtime.prefill(TOKENS[:first], 64)] + [runtime.decode(token) for token in TOKENS[first:]]
        np.testing.assert_allclose(np.stack(steps), whole[first - 1 :], atol=2e-5)
        runtime.prefill(TOKENS[:first], 64)
        np.testing.assert_allclose(runtime.read_on(TOKENS[first:]), whole[first:], atol=2e-5)
        for back in (44, 43, 42, 41, 36, 35, 13, 3, 0):
            runtime.rewind(back)
            np.testing.assert_allclose(runtime.read_on(TOKENS[back:]), whole[back:], atol=2e-5, err_msg=f"behind {back}")


def test_texts_in_one_call_are_answered_as_alone() -> None:
    runtime = runtime_of(keeping("llama"))
    texts = [{"input_ids": TOKENS[:length], "attention_mask": [1] * length} for length in (45, 3, 30, 13)]
    for together, text in zip(runtime.logits(texts), texts, strict=True):
        assert np.array_equal(together, at_once(runtime, text["input_ids"]))


def test_what_is_judged_is_what_is_written() -> None:
    """The likeliest token behind each place, by reading, is what is written there."""
    checkpoint = keeping("llama", tie_word_embeddings=False)
    checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)
    runtime: Any = runtime_of(checkpoint)
    written = list(following(runtime, TOKENS[:20], 24))
    judged = at_once(runtime, [*TOKENS[:20], *written])
    assert judged[19:-1].argmax(-1).tolist() == written
    plain: Any = runtime_of(replace(checkpoint, info=replace(checkpoint.info, cache=None)))
    assert list(following(plain, TOKENS[:20], 24)) != written, "so few bits change what is written"


def test_what_it_takes_in_memory() -> None:
    checkpoint = keeping("llama")
    runtime: Any = runtime_of(checkpoint)
    runtime.prefill(TOKENS[:40], 64)
    cache = runtime.cache
    assert isinstance(cache, RoundedCache)
    rounded, kept = FORM.rounded(40), 40 - FORM.rounded(40)
    assert (rounded, kept) == (32, 8)
    channels = 2 * 2 * 2 * 8  # layers, keys and values, heads, channels
    assert cache.size_bytes == channels * (rounded * FORM.per_number / 8 + kept * 4)
    assert cache.get_seq_length() == 40
    assert all(layer.keys.untyped_storage().nbytes() == layer.keys.numel() * 4 for layer in cache.layers), "what was rounded is held all the same"


def test_windows_are_scored_through_it(tmp_path: Any) -> None:
    """The benchmark's own counts, of a model whose directory asks for the cache."""
    from recompress.benchmarks import get_benchmark
    from tests.six import texts

    costs = {}
    for form in (None, CacheBits(8, 8, 4), FORM):
        checkpoint = keeping("llama", form)
        rows = get_benchmark("language-modelling").read(runtime_of(checkpoint), checkpoint.tokenizer, texts(20), LENGTH, "")  # type: ignore[attr-defined]
        costs[form] = sum(int(row[0]) for row in rows)
    assert costs[None] != costs[CacheBits(8, 8, 4)] != costs[FORM]
    assert abs(costs[CacheBits(8, 8, 4)] - costs[None]) < abs(costs[FORM] - costs[None])
