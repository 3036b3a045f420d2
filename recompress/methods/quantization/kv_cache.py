"""Key-value cache in few bits: what a decoder keeps of the tokens that it has read is rounded, keys by channel and values by token, but for the last tokens.

    keys:    a step and a least number for each channel of each ``group`` tokens                 x ~ low + step * code
    values:  a step and a least number for each ``group`` channels of each token                 step = (max x - min x) / (2^bits - 1),  low = min x

No weight changes: the model's directory says how it keeps them, and everything that is asked of it on torch, one text at a time, is answered through that cache. A token
sees rounded what lies more than ``residual`` to ``residual + group - 1`` tokens behind it, wherever it is read, so that perplexity is that of the model which is served.
Packed weights take it along: put the step before ``rtn`` or ``gptq``. Files for other runtimes have caches of their own and are refused.

A number takes bits + 32 / group bits instead of 32. Codes become floats again at each step, one layer at a time, which costs time and no memory.
Source: Liu et al. 2024 (KIVI), arXiv:2402.02750, section 3 and algorithm 1; where ``recompress.runtimes.rounded_cache`` departs from it, it says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from recompress.errors import InputError
from recompress.methods.probe import probe_features
from recompress.methods.registry import OF_LANGUAGE, Claim, Inputs, method
from recompress.models.architecture import DECODERS, layers_of
from recompress.models.cache_bits import Bits, CacheBits, Group, Residual
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of
from recompress.settings.base import Settings

States = Float[np.ndarray, "heads tokens channels"]
CLOSE = 1e-4
"""The largest difference of an answer, relative to the largest, that another order of the same sums may give."""
MOVED = 1e-5
"""More than that other order, relative to the largest."""
HALF_STEP, FLOATS = 0.5, 0.02
"""The farthest that the nearest code can be, in steps; and what steps and least numbers of 16 bits add, where a channel lies far from zero."""
APART: dict[int, float] = {8: 0.1, 4: 0.5, 2: 1.0}
"""How far answers may move, as a share of how far they lie apart: a cache that holds something else moves them by more than 1."""
OWN = "it has a cache of its own, which keeps keys and values as they are; leave kv_cache out, or stay on torch, packed or not"
FILES = ("dynamic_int8", "gguf", "gguf_nbits", "onnx_fp32", "onnx_genai", "onnx_genai_nbits", "onnx_nbits", "qat_int8", "static_int8")


class KvCache(Settings):
    """How keys and values are kept."""

    bits: Bits = 4
    """Bits of a number."""
    group: Group = 32
    """Tokens of a channel of keys, and channels of a token's values, that share a step; it must divide the channels of a head."""
    residual: Residual = 32
    """Tokens at the end that are kept as they are, at least: up to ``group - 1`` more wait until their group is full."""


def worst_rounding(exact: States, kept: States, form: CacheBits, *, by_channel: bool) -> float:
    """The farthest that a number lies from what stands for it, in steps of its group: of tokens, for each channel, or of channels, for each token."""
    heads, tokens, channels = exact.shape
    group = form.group
    shape, axis = ((heads, tokens // group, group, channels), 2) if by_channel else ((heads, tokens, channels // group, group), 3)
    was, now = exact.reshape(shape), kept.reshape(shape)
    steps = np.ptp(was, axis=axis) / ((1 << form.bits) - 1)
    return float((np.abs(was - now).max(axis=axis) / np.maximum(steps, 1e-30)).max())


def probe_tokens(checkpoint: Checkpoint, inputs: Inputs, count: int) -> list[int]:
    """So many tokens of the text that calibration draws, from the beginning again where it ends."""
    tokens = [token for feature in probe_features(checkpoint, inputs) for token in feature["input_ids"]]
    return (tokens * (1 + count // len(tokens)))[:count]


def first_layer(checkpoint: Checkpoint, form: CacheBits | None, tokens: list[int]) -> tuple[Any, States, States]:
    """The cache behind ``tokens``, and keys and values of the first layer as the last of them sees them: they depend on no other layer's rounding."""
    runtime: Any = runtime_of(replace(checkpoint, info=replace(checkpoint.info, cache=form)))
    runtime.prefill(tokens[:-1], len(tokens))
    layer = runtime.cache.layers[0]
    update, seen = layer.update, list[Any]()

    def look(*states: Any, **named: Any) -> Any:
        seen[:] = update(*states, **named)
        return seen

    layer.update = look
    runtime.decode(tokens[-1])
    keys, values = (states[0].float().numpy() for states in seen)
    return runtime.cache, keys, values


def prove(before: Checkpoint, after: Checkpoint, config: KvCache, inputs: Inputs) -> list[Claim]:
    """So many bits for each number that is rounded, keys near what they were by channel and values by token, answers that are the same as long as nothing is rounded, and near behind."""
    form = after.info.cache or CacheBits(8, 128, 1)
    asked = CacheBits(config.bits, config.group, config.residual)
    positions = int(after.torch_network.config.max_position_embeddings)
    tokens = probe_tokens(before, inputs, min(positions, asked.residual + 3 * asked.group))
    seen = asked.rounded(len(tokens))
    _, *exact = first_layer(before, None, tokens)
    cache, *kept = first_layer(after, form, tokens)
    keys, values = (
        worst_rounding(was[:, :seen], now[:, :seen], asked, by_channel=by_channel) for was, now, by_channel in zip(exact, kept, (True, False), strict=True)
    )
    numbers = sum(2 * layer.rounded * layer.keys.shape[0] * layer.keys.shape[1] * layer.keys.shape[3] for layer in cache.layers)
    coded = sum(ranges.size_bytes for layer in cache.layers for ranges in layer.coded or ())
    feature = [{"input_ids": tokens, "attention_mask": [1] * len(tokens)}]
    [was], [now] = (runtime_of(checkpoint).logits(feature, 1) for checkpoint in (before, after))
    free = asked.residual + asked.group - 1
    gap = np.abs(was - now).max(axis=-1) / max(1.0, float(np.abs(was).max()))
    apart = float(np.square(was[free:] - now[free:]).sum() / max(float(np.square(was[free:] - was[free:].mean(-1, keepdims=True)).sum()), 1e-30)) ** 0.5
    return [
        Claim("bits of a number that is rounded", asked.per_number, 8 * coded / max(1, numbers), 1e-9),
        Claim("tokens that are rounded", seen, cache.layers[0].rounded),
        Claim("largest rounding of a key, in steps of its channel", HALF_STEP, keys, FLOATS, "at most"),
        Claim("largest rounding of a value, in steps of its token", HALF_STEP, values, FLOATS, "at most"),
        Claim("difference of answers before anything is rounded, relative to the largest", 0, float(gap[:free].max(initial=0)), CLOSE),
        Claim("tokens behind whose answers moved", 1, int((gap[free:] > MOVED).sum()), bound="at least"),
        Claim("how far answers moved, as a share of how far they lie apart", APART[config.bits], apart, bound="at most"),
    ]


@method(
    "kv_cache",
    KvCache,
    family="quantization",
    prove=prove,
    needs=("calibration",),
    benchmarks=OF_LANGUAGE,
    architectures=DECODERS,
    source="Liu et al. 2024, arXiv:2402.02750, section 3 and algorithm 1",
    shrinks="the cache of keys and values, to (bits + 32 / group) / 32; no file",
    speeds_up="nothing: codes become floats at each token",
    not_after={"kv_cache": "keys and values are kept in few bits already; one such step is enough"},
    not_before=dict.fromkeys(FILES, OWN),
)
def keep_in_few_bits(checkpoint: Checkpoint, config: KvCache, inputs: Inputs) -> Checkpoint:
    """Keys and values in few bits while a decoder reads and writes, the last tokens as they are."""
    size, longest = layers_of(checkpoint.torch_network)[0].head_size, checkpoint.info.max_length
    form = CacheBits(config.bits, config.group, config.residual)
    if size % form.group:
        fitting = [group for group in get_args(Group) if size % group == 0]
        out = f"choose {' or '.join(map(str, fitting))}" if fitting else "nor does any other; leave the step out"
        raise InputError(f"group {form.group} does not divide the {size} channels of a head; {out}")
    if not form.rounded(longest):
        raise InputError(
            f"residual {form.residual} and group {form.group} leave every token of the {longest} that are read as it is, so that nothing would be rounded; "
            "choose smaller ones, raise max_length, or leave the step out"
        )
    checkpoint.info = replace(checkpoint.info, cache=form)
    return checkpoint
