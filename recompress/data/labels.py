"""What rows say beside their text, by the kind of answer: labels that are names, labels that are numbers, and the kinds of rows that a split takes a share of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from recompress.benchmarks import Example
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.data.questions import KINDS
from recompress.models.heads import NUMBER, Answer

BINS = 10
"""Kinds of numbers, of as many rows each, smallest first."""


def settled(labels: Iterable[str], answer: Answer) -> tuple[str, ...]:
    """Labels as rows carry them: of several the set, sorted, so that one set has one form; of numbers one form for each value (1.50 is 1.5)."""
    if answer == "labels":
        return tuple(sorted(set(labels) - {NO_LABEL_HOLDS})) or (NO_LABEL_HOLDS,)
    return tuple(f"{float(label):.15g}" for label in labels) if answer == "number" else tuple(labels)


def names_in(labels: Iterable[str], answer: Answer) -> set[str]:
    """The names that a model has outputs for; texts are no names."""
    return {*NUMBER.outputs} if answer == "number" else set() if answer == "text" else set(labels) - {NO_LABEL_HOLDS}


def kinds_of(rows: Sequence[Example], answer: Answer, *, by_type: bool = False) -> list[tuple[str, ...]]:
    """Of each row the kind that splits take the same share of: its label; of texts that are written no kind; of questions whether they have an answer; of several labels the one that the fewest rows have; of numbers the tenth that it lies in; of tagged sentences the
    whole row of tags, or (``by_type``) the type of entity in it that the fewest sentences have."""
    if answer == "text":
        return [()] * len(rows)
    if answer == "labels":
        counts = Counter(label for row in rows for label in row.labels)
        return [(min(row.labels, key=lambda label: (counts[label], label)),) if row.labels else () for row in rows]
    if answer == "number":
        numbers = np.array([float(row.labels[0]) for row in rows])
        places = np.searchsorted(np.sort(numbers), numbers)  # equal numbers are of one kind
        return [(str(BINS * int(place) // len(rows)),) for place in places]
    if answer == "span":
        return [(KINDS[any(row.labels)],) for row in rows]
    if answer == "tags" and by_type:
        types = [{tag[2:] for tag in row.labels if tag != "O"} for row in rows]
        sentences = Counter(kind for held in types for kind in held)
        return [(min(held, key=lambda kind: (sentences[kind], kind)),) if held else ("",) for held in types]
    return [row.labels for row in rows]
