"""What a training learns from and is judged by: features of both splits, and the benchmark's metrics on dev.

Running text is read on from row to row and learned in windows, the very ones that the benchmark scores; all else is learned example by example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from recompress.benchmarks import Benchmark, Example, InWindows, ReadsOn, answers_of, benchmark_of
from recompress.errors import DataRefused

if TYPE_CHECKING:
    from torch import Tensor

    from recompress.models.checkpoint import Checkpoint

Features = list[dict[str, Any]]


def training_features(checkpoint: Checkpoint, examples: Sequence[Example], dev: Sequence[Example], label: str) -> tuple[Features, Features, list[Example]]:
    """Features of train and dev, and dev's examples in the order of their features (none where text is read on: its windows are no examples).

    Raises ``DataRefused`` for a split that is empty.
    """
    for name, split in (("train", examples), ("dev", dev)):
        if not split:
            raise DataRefused(f"{label}: the {name} split is empty; training needs examples to learn from and examples to be judged by")
    info, benchmark = checkpoint.info, benchmark_of(checkpoint.info)
    if isinstance(benchmark, ReadsOn):
        learned, judged = (benchmark.pieces(checkpoint.tokenizer, split, info.max_length) for split in (examples, dev))
        return [*learned], [*judged], []
    ordered = sorted(dev, key=lambda example: sum(map(len, example.words)))  # like lengths in one batch
    learned, judged = (benchmark.encode(checkpoint.tokenizer, split, info.labels, info.max_length) for split in (examples, ordered))
    return [*learned], [*judged], ordered


def taught(
    benchmark: Benchmark, features: Sequence[dict[str, Any]], soft_labels: Sequence[Float[np.ndarray, "units labels"]], examples: Sequence[Example]
) -> Features:
    """Features that carry, as ``teacher``, what one said about their examples."""
    rows = benchmark.for_features(soft_labels, features, examples) if isinstance(benchmark, InWindows) else soft_labels
    return [{**feature, "teacher": row} for feature, row in zip(features, rows, strict=True)]


def token_costs(logits: Float[Tensor, "batch length vocabulary"], labels: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length"]:
    """- ln p of what follows each position, 0 where nothing does. Costs of all windows fit into memory, which their logits do not."""
    from torch.nn.functional import cross_entropy

    from recompress.benchmarks.scores import NO_LABEL

    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LABEL, reduction="none").view_as(labels)


def dev_metrics(benchmark: Benchmark, labels: Sequence[str], dev: Sequence[Example], features: Sequence[dict[str, Any]], rows: np.ndarray) -> dict[str, float]:
    """The benchmark's metrics from the padded logits of all dev examples, ``[examples, length, labels]`` or ``[examples, labels]``, or, where text is read on,
    from the padded costs of all windows, ``[windows, length]``."""
    if isinstance(benchmark, ReadsOn):
        units = [np.stack([row[: len(f["bytes"])], np.asarray(f["bytes"])], axis=1) for row, f in zip(rows, features, strict=True)]
        references: list[tuple[str, ...]] = [()] * len(units)
    else:
        units = [benchmark.unit_logits(row, feature) for row, feature in zip(rows, features, strict=True)]
        references = [example.labels for example in dev]
    totals = benchmark.counts(references, answers_of(benchmark, units, features, dev, labels), labels).sum(axis=0)
    return {name: float(value) for name, value in benchmark.metrics(totals, labels).items()}
