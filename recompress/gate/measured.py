"""What the gate is given: each model's evaluation with its counts for every example, and what was promised before measuring."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num

from recompress.errors import IntegrityError
from recompress.integrity.digest import sha256_file
from recompress.records import Evaluation, Record
from recompress.settings.base import Sha256

COLUMNS = ("example", "slice", "reference", "counts")
GROUP = "group"
"""A column of its own, where the data names groups."""


class Expected(Record):
    """What the judged models and data must be: known from the run, the ledger and the registry, never from the evaluations themselves."""

    policy_sha256: Sha256
    """Digest of the policy, recorded before anything was measured."""
    dataset_sha256: Sha256
    split_sha256: Sha256
    """Digest of the whole test split, by which looks are counted."""
    finalists: tuple[Sha256, ...]
    """Digests of those that were named before the test split was looked at, as the ledger holds them."""
    refused_before: bool = False
    """Whether the ledger says that this very look was judged before, and refused."""
    examples: int
    """Examples in the test split."""
    candidate_sha256: Sha256
    baseline_sha256: Sha256
    groups: int = 0
    """Groups of examples in the test split; 0 where the data names none."""
    champion_sha256: Sha256 | None
    """The present champion's model; None when there is none."""
    accepted_baseline_sha256: Sha256 | None
    """The baseline behind the last promotion of this model; None when nothing was promoted before."""
    baseline_accepted_by: str
    """Who let this baseline count although it is worse than that one, and where it is recorded; empty when nobody did."""
    trainings: tuple[tuple[Sha256, Sha256], ...] = ()
    """Candidate and baseline of each further training, where the policy asks for several."""


@dataclass(frozen=True)
class Measured:
    """One model's evaluation and the counts behind it, a row for each test example, in the order of the test split."""

    evaluation: Evaluation
    examples: Sequence[str]
    """Names of the test examples; none stands twice."""
    slices: Sequence[str]
    references: Sequence[Sequence[str]]
    """The true labels of each example: they show that two models answered the same questions."""
    counts: Num[np.ndarray, "..."]
    """What the benchmark's metrics add up, ``[examples, k]`` as ``Benchmark.counts`` gives it; the gate refuses any other shape."""
    groups: Sequence[int] | None = None
    """For each example the number of its group (document, author); examples of a group rise and fall together. None where the data names none."""

    @property
    def pairing_sha256(self) -> str:
        """Digest of examples, slices, references and groups (where there are any) in order. Two models can be compared example by example when theirs are equal."""
        digest = hashlib.sha256()
        groups = [[]] * len(self.examples) if self.groups is None else [[group] for group in self.groups]
        for *row, group in zip(self.examples, self.slices, self.references, groups, strict=True):
            digest.update(json.dumps([row[0], row[1], list(row[2]), *group]).encode() + b"\n")
        return digest.hexdigest()


def read_measured(evaluation: Evaluation, predictions: Path) -> Measured:
    """The counts behind an evaluation, from its predictions file. Raises ``IntegrityError`` when its bytes or columns are not what they should be."""
    import pyarrow.parquet

    digest = sha256_file(predictions)
    if digest != evaluation.predictions_sha256:
        raise IntegrityError(f"the predictions of {evaluation.model} have sha256 {digest[:12]}…, the evaluation says {evaluation.predictions_sha256[:12]}…")
    with pyarrow.parquet.ParquetFile(predictions) as file:  # read_table brings pandas
        table = file.read()
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise IntegrityError(f"the predictions of {evaluation.model} have no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
    example, part, reference, counts = (table.column(name).to_pylist() for name in COLUMNS)
    if len({len(row or ()) for row in counts}) > 1:
        raise IntegrityError(f"the predictions of {evaluation.model} have counts of different lengths")
    width = len(counts[0]) if counts else 0
    groups = table.column(GROUP).to_pylist() if GROUP in table.column_names else None
    if groups is not None and not all(isinstance(group, int) for group in groups):
        raise IntegrityError(f"the predictions of {evaluation.model} have an example whose group is no number")
    return Measured(
        evaluation=evaluation,
        examples=[str(name) for name in example],
        slices=[str(name) for name in part],
        references=[[str(label) for label in labels or ()] for labels in reference],
        counts=np.asarray(counts, dtype=np.float64).reshape(len(counts), width),
        groups=groups,
    )
