"""How good a network is on dev: the benchmark's metric, and the mean loss for those that are equal in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from recompress.benchmarks import Example, ReadsOn, answers_of, benchmark_of
from recompress.measure.quality import predict
from recompress.methods.pruning.by_loss import mean_loss
from recompress.models.checkpoint import Checkpoint
from recompress.runtimes import runtime_of
from recompress.training.judge import training_features
from recompress.training.losses import losses_of


class Score(NamedTuple):
    """Compares as it should be ranked: the best is the largest."""

    metric: float
    """The benchmark's primary metric; minus infinity where it has no value."""
    negative_loss: float


def dev_score(checkpoint: Checkpoint, dev: Sequence[Example], label: str) -> Score:
    """Raises ``DataRefused`` without examples, and ``IntegrityError`` when outputs are not finite."""
    info, benchmark, runtime = checkpoint.info, benchmark_of(checkpoint.info), runtime_of(checkpoint)
    _, features, ordered = training_features(checkpoint, dev, dev, label)
    if isinstance(benchmark, ReadsOn):
        ordered, answers = [*dev], benchmark.read(runtime, checkpoint.tokenizer, dev, info.max_length, label)
    else:
        answers = answers_of(benchmark, predict(runtime, benchmark, features, label), features, ordered, info.labels)
    totals = benchmark.counts([example.labels for example in ordered], answers, info.labels).sum(axis=0)
    metric = float(benchmark.metrics(totals, info.labels)[benchmark.primary])
    return Score(metric if math.isfinite(metric) else -math.inf, -mean_loss(checkpoint.torch_network, features, losses_of(info)))
