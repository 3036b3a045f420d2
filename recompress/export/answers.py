"""Does the exported folder answer as the model that was judged? Both are asked, one text at a time, so that no answer depends on its neighbours in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recompress.benchmarks import Benchmark, Example, ReadsOn, benchmark_of
from recompress.errors import IntegrityError
from recompress.export.format import Reader
from recompress.models.checkpoint import Info, read_info
from recompress.models.heads import NUMBER
from recompress.models.tokenizer import load_tokenizer
from recompress.runtimes import Feature, open_runtime

RANDOM = 8
"""Sequences of random tokens, of as many lengths: nothing about them is usual."""


LAST_DIGITS = 4
"""Steps between neighbouring 32-bit floats by which an answered number may differ: a mean is added to it at the end."""


@dataclass(frozen=True)
class Agreement:
    """How close the two are."""

    texts: int
    """Real texts that both answered; all of them alike."""
    largest_change: float
    """Of a logit, relative to the largest logit."""


def compare(directory: Path, reader: Reader, examples: Sequence[Example], *, close: float, why_apart: str = "") -> Agreement:
    """Ask the model in ``directory`` and the foreign ``reader``. Raises ``IntegrityError`` that names the first text on which they differ, and says ``why_apart``."""
    info, tokenizer = read_info(directory), load_tokenizer(directory)
    benchmark = benchmark_of(info)
    draw = np.random.default_rng(0)
    features: list[Feature] = [{"input_ids": draw.integers(0, len(tokenizer), length).tolist()} for length in range(2, 2 + RANDOM)]
    real = (
        benchmark.pieces(tokenizer, examples, info.max_length)
        if isinstance(benchmark, ReadsOn) and examples
        else benchmark.encode(tokenizer, list(examples), info.labels, info.max_length)
    )
    ours = open_runtime(directory, threads=1).logits([*features, *real], batch_size=1)
    theirs = reader([*features, *real])
    size = max(1.0, *(float(np.abs(logits).max()) for logits in ours))
    largest = 0.0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        what = f"text {number - RANDOM + 1}" if number >= RANDOM else f"{number + 2} random tokens"
        if mine.shape != other.shape or not np.isfinite(other).all():
            raise IntegrityError(f"the exported model answers {what} with {list(other.shape)} numbers, some not finite, where {list(mine.shape)} are right")
        largest = max(largest, float(np.abs(mine - other).max()) / size)
        if largest > close:
            raise IntegrityError(
                f"the exported model answers {what} otherwise: a logit differs by {largest:.3g} of the largest, {close:g} is allowed{why_apart and f'; {why_apart}'}"
            )
        if number >= RANDOM:
            _check_decision(benchmark, info, real[number - RANDOM], mine, other, what, close)
    return Agreement(len(real), largest)


def _check_decision(benchmark: Benchmark, info: Info, feature: Feature, mine: np.ndarray, other: np.ndarray, what: str, close: float) -> None:
    if isinstance(benchmark, ReadsOn):
        return
    was, now = (benchmark.decide(benchmark.unit_logits(logits, feature), info.labels) for logits in (mine, other))
    if was != now and not (benchmark.head is NUMBER and _as_near(float(mine[0]), float(other[0]), info.standard, close)):
        raise IntegrityError(f"the exported model decides {what} otherwise: {', '.join(now)} where the model that was judged says {', '.join(was)}")


def _as_near(mine: float, other: float, standard: tuple[float, float] | None, close: float) -> bool:
    """Whether two numbers that are answered differ by no more than ``close`` beside the spread of all (where nobody knows it, beside the number itself), or by what 32
    bits hold of numbers this far from zero."""
    spread = abs(mine) if standard is None else standard[1]
    return abs(mine - other) <= max(close * spread, LAST_DIGITS * float(np.spacing(np.float32(abs(mine)))))
