"""Features into padded batches, and the answers back out, in the order of the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

Feature = dict[str, list[int]]
Batch = dict[str, Int[np.ndarray, "batch length"]]
BATCH_SIZE = 32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""All that a network may be given. Which text of a pair a token belongs to (its segment) stands only in features of models that know segments."""
T = TypeVar("T")


def inputs_of(batch: Mapping[str, T]) -> dict[str, T]:
    """What of a batch, or of a feature, a network is given; the rest is for losses and for reading its answers."""
    return {name: batch[name] for name in INPUTS if name in batch}


def with_all(batch: Batch, names: Sequence[str]) -> Batch:
    """What a graph with these inputs is given: of segments that a batch does not tell, all are the first."""
    return {name: batch[name] if name in batch else np.zeros_like(batch["input_ids"]) for name in names}


def one_answer(outputs: Sequence[Float[np.ndarray, "batch ..."]]) -> Float[np.ndarray, "batch ..."]:
    """The outputs of a graph as one: logits as they are, those of beginnings and of ends as two columns, ``[batch, length, 2]``."""
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)


def pad_batch(features: Sequence[Feature], pad_id: int) -> Batch:
    """Features padded on the right to the longest of them. Only what a model takes is kept; the mask is 0 where there is padding."""
    length = max(len(feature["input_ids"]) for feature in features)
    batch = {}
    for name in INPUTS:
        if name in features[0]:
            filler = pad_id if name == "input_ids" else 0
            batch[name] = np.array([feature[name] + [filler] * (length - len(feature[name])) for feature in features], dtype=np.int64)
    if "attention_mask" not in batch:
        lengths = np.array([[len(feature["input_ids"])] for feature in features])
        batch["attention_mask"] = (np.arange(length)[None] < lengths).astype(np.int64)
    return batch


def batches_of(features: Sequence[Feature], pad_id: int, batch_size: int = BATCH_SIZE) -> Iterator[tuple[list[int], Batch]]:
    """Positions and padded features, similar lengths together, so that little is computed for padding."""
    order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, pad_batch([features[i] for i in rows], pad_id)


def answer(features: Sequence[Feature], run: Callable[[Batch], Float[np.ndarray, "batch ..."]], pad_id: int, batch_size: int) -> list[Float[np.ndarray, "..."]]:
    """Run all batches. Answers that have a row for each position lose those of padding."""
    answers: dict[int, Float[np.ndarray, "..."]] = {}
    for rows, batch in batches_of(features, pad_id, batch_size):
        for row, logits in zip(rows, run(batch), strict=True):
            answers[row] = logits[: len(features[row]["input_ids"])].copy() if logits.ndim == 2 else logits
    return [answers[i] for i in range(len(features))]
