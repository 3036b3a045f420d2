"""What a smaller vocabulary must leave as it was: how text whose tokens all stay is cut, and what the network answers to it."""

from __future__ import annotations

import numpy as np

from recompress.benchmarks import first_of_each
from recompress.methods.probe import probe_text
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of

NO_LIMIT = 1 << 20
"""Tokens of a text that is looked at whole: what training cuts off still says which tokens the language uses."""
PROBES = 64


def has_output(checkpoint: Checkpoint) -> bool:
    """Whether the network is a decoder, whose last layer has a row for each token."""
    return checkpoint.torch_network.get_output_embeddings() is not None


def cut_otherwise(before: Checkpoint, after: Checkpoint) -> int:
    """Texts made of some kept tokens each that were cut into kept tokens only, and now are cut into others."""
    vocabulary = after.tokenizer.get_vocab()
    names = sorted(vocabulary)
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(PROBES):
        text = before.tokenizer.decode(before.tokenizer.convert_tokens_to_ids([names[i] for i in draw.integers(0, len(names), 6)]), skip_special_tokens=True)
        was = before.tokenizer.convert_ids_to_tokens(before.tokenizer(text, verbose=False)["input_ids"])
        if all(token in vocabulary for token in was):
            wrong += after.tokenizer(text, verbose=False)["input_ids"] != [vocabulary[token] for token in was]
    return wrong


def kept_text(before: Checkpoint, after: Checkpoint, inputs: Inputs) -> list[tuple[list[int], list[int]]]:
    """Training text whose tokens all stay, with the numbers that its tokens should have now, and those that it gets."""
    was, now = before.tokenizer.get_vocab(), after.tokenizer.get_vocab()
    numbers = {was[token]: number for token, number in now.items()}
    rows, info = probe_text(inputs, PROBES), before.info
    whole = inputs.benchmark.encode(before.tokenizer, rows, info.labels, NO_LIMIT)
    old, new = (first_of_each(inputs.benchmark.encode(checkpoint.tokenizer, rows, info.labels, info.max_length)) for checkpoint in (before, after))
    texts = [(a["input_ids"], b["input_ids"]) for every, a, b in zip(whole, old, new, strict=True) if all(i in numbers for i in every["input_ids"])]
    return [([numbers[i] for i in a], b) for a, b in texts]


def output_change(before: Checkpoint, after: Checkpoint, text: list[tuple[list[int], list[int]]]) -> tuple[float, float]:
    """The largest change of an output on this text and on random kept tokens, and the largest output. A decoder's are compared token by token."""
    vocabulary = sorted(after.tokenizer.get_vocab().items(), key=lambda item: item[1])
    was = before.tokenizer.get_vocab()
    numbers = [was[token] for token, _ in vocabulary]
    draw = np.random.default_rng(0)
    rows = draw.integers(0, len(vocabulary), (PROBES, min(16, after.info.max_length))).tolist() + [now for wanted, now in text if wanted == now]
    old = runtime_of(before).logits([{"input_ids": [numbers[i] for i in row]} for row in rows])
    new = runtime_of(after).logits([{"input_ids": [vocabulary[i][1] for i in row]} for row in rows])
    if has_output(after):
        old = [logits[..., numbers] for logits in old]
    return max(float(np.abs(a - b).max()) for a, b in zip(old, new, strict=True)), max(1.0, *(float(np.abs(a).max()) for a in old))
