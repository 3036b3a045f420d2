"""Examples into batches: padded to the longest of the batch, in an order that follows from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Sampler

from recompress.benchmarks.scores import NO_LABEL
from recompress.runtimes.asking import NEVER

Feature = dict[str, Any]
MEGABATCH = 50
"""Batches that are sorted by length together: enough for little padding, few enough to leave the order random."""


def collate(features: Sequence[Feature], pad_token_id: int) -> dict[str, Tensor]:
    """Pad features into tensors: ``input_ids``, ``attention_mask`` and ``labels``, and, where features have them, ``token_type_ids`` and, of what a teacher said, ``teacher``.

    ``labels`` are numbers ``[batch, units]``, or flags ``[batch, units, labels]``; ``teacher`` is ``[batch, units, labels]`` with each unit's logits at its position
    and zeros elsewhere, or ``[batch, 2, length]`` where ends are found.
    """
    batch = {
        "input_ids": _padded([feature["input_ids"] for feature in features], pad_token_id),
        "attention_mask": _padded([feature["attention_mask"] for feature in features], 0),
        "labels": _labels([feature["labels"] for feature in features]),
    }
    if "token_type_ids" in features[0]:
        batch["token_type_ids"] = _padded([feature["token_type_ids"] for feature in features], 0)
    if "teacher" in features[0]:
        batch["teacher"] = _teacher(features, batch["labels"].shape[1])
    return batch


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _labels(rows: Sequence[Sequence[Any]]) -> Tensor:
    """Numbers of labels ``[batch, units]``, or, where each unit has a row of flags or numbers, 32-bit floats ``[batch, units, labels]``."""
    return torch.tensor(rows, dtype=torch.float32) if isinstance(rows[0][0], list) else _padded(rows, NO_LABEL)


def _teacher(features: Sequence[Feature], positions: int) -> Float[Tensor, "batch units labels"]:
    if "begins" in features[0]:
        return _teacher_of_ends(features)
    table = np.zeros((len(features), positions, features[0]["teacher"].shape[1]), dtype=np.float32)
    for i, feature in enumerate(features):
        units = np.asarray(feature["units"])
        seen = units >= 0
        table[i, units[seen]] = feature["teacher"][seen]
    return torch.from_numpy(table)


def _teacher_of_ends(features: Sequence[Feature]) -> Float[Tensor, "batch 2 length"]:
    """Of beginnings and ends, which are chosen among tokens: ``[batch, 2, length]``; no padding is ever chosen."""
    table = np.full((len(features), 2, max(len(feature["input_ids"]) for feature in features)), NEVER, dtype=np.float32)
    for i, feature in enumerate(features):
        table[i, :, : len(feature["teacher"])] = feature["teacher"].T
    return torch.from_numpy(table)


class EpochOrder(Sampler[int]):
    """The order of examples in each epoch, drawn from (seed, epoch): a resumed training and all of its processes see the same one."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, *, group_by_length: bool) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.group_by_length = group_by_length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        order = draw.permutation(len(self.lengths))
        if self.group_by_length:
            order = self._grouped(order, draw)
        return iter(order.tolist())

    def _grouped(self, order: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Batches of like length in random order; the one that is not full comes last, so that all others stay together."""
        size = self.batch_size * MEGABATCH
        batches = []
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        return np.concatenate([batches[i] for i in draw.permutation(len(batches))] + last)
