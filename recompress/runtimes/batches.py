"""Features into padded batches, and the answers back out, in the order of the features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from recompress.runtimes.cutting import TORCH, Cost, cut

Feature = dict[str, list[int]]
Batch = dict[str, Int[np.ndarray, "batch length"]]
BATCH_SIZE = 32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""All that a network may be given. Which text of a pair a token belongs to (its segment) stands only in features of models that know segments."""
T = TypeVar("T")
Run = Callable[[Batch], Float[np.ndarray, "batch ..."]]
"""What answers a batch."""
Part = tuple[list[int], list[Float[np.ndarray, "..."]]]
"""Positions of features, and their logits."""


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


def batches_of(features: Sequence[Feature], pad_id: int, batch_size: int = BATCH_SIZE, cost: Cost = TORCH) -> Iterator[tuple[list[int], Batch]]:
    """Positions and padded features, cut so that they cost least; ``batch_size`` is what memory allows."""
    for rows in cut([len(feature["input_ids"]) for feature in features], batch_size, cost):
        yield rows, pad_batch([features[i] for i in rows], pad_id)


def in_parts(features: Sequence[Feature], run: Run, pad_id: int, batch_size: int = BATCH_SIZE, cost: Cost = TORCH) -> Iterator[Part]:
    """Run all batches. Answers that have a row for each position lose those of padding."""
    for rows, batch in batches_of(features, pad_id, batch_size, cost):
        answers = zip(rows, run(batch), strict=True)
        yield rows, [logits[: len(features[row]["input_ids"])].copy() if logits.ndim == 2 else logits for row, logits in answers]


def in_order(parts: Iterable[tuple[Sequence[int], Sequence[T]]]) -> list[T]:
    """What parts hold, each thing at its position."""
    things = {row: thing for rows, part in parts for row, thing in zip(rows, part, strict=True)}
    return [things[i] for i in range(len(things))]


def answer(features: Sequence[Feature], run: Run, pad_id: int, batch_size: int = BATCH_SIZE, cost: Cost = TORCH) -> list[Float[np.ndarray, "..."]]:
    """``in_parts``, in the order of the features."""
    return in_order(in_parts(features, run, pad_id, batch_size, cost))
