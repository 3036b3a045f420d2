"""The dials of a first recipe and policy, each with what it follows from, so that the first run works and a person sees what to turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recompress.data.checks import MIN_ROWS
from recompress.errors import DataRefused
from recompress.gate.statistics import detectable

FIRST_LOOK = 0.0125
"""The error rate of a bound at a first look among three finalists, or less: what a margin is reckoned with."""
POWER = 0.8
FLIPS = 0.06
"""Share of examples on which a candidate that loses nothing is taken to be right where the baseline is not, or the other way round."""
BITS, VARIES = 0.02, 0.05
"""Of a model of language: what 8 bits may cost in bits per byte, of which a small model of English takes about one; and by how much the cost differs from text to text."""
LEAST_TESTED, USUALLY_TESTED = 100, 300
"""The gate judges no fewer test examples than the first, and by itself asks for the second."""
TEST_SHARE, MOST_TESTED, DEV_SHARE = 0.2, 0.4, 0.1
LEARNING_RATES = ((384, 2e-4), (768, 5e-5), (1024, 3e-5))
"""By the width of the base: small ones bear more."""
SMALLEST_RATE = 2e-5
EPOCHS = ((2_000, 5), (10_000, 3))
STUDENT_EPOCHS = 5
"""Of the smaller student, who has more to learn: studies/results/tenfold.md."""
LENGTHS = (16, 512)
STEP = 16


@dataclass(frozen=True)
class Dials:
    """What the templates of recipe and policy are filled with, besides names."""

    epochs: int
    learning_rate: str
    max_length: int
    layers: int
    """Of the smaller student."""
    student_epochs: int
    """Its passes over the training examples."""
    margin: float
    loss_budget: float
    tested: int
    least_tested: int


def shares(rows: int, *, dev: bool = False, test: bool = False) -> dict[str, float]:
    """Which share of ``rows`` goes into the splits that are missing (``dev``, ``test``): more of a small data set into test, because the gate counts there.

    Raises ``DataRefused`` for too few rows to judge anything by.
    """
    parts: dict[str, float] = {}
    if test:
        parts["test"] = round(min(MOST_TESTED, max(TEST_SHARE, USUALLY_TESTED / rows)), 2)
        if rows * parts["test"] < LEAST_TESTED:
            raise DataRefused(
                f"{rows:,} rows are too few: the gate judges at least {LEAST_TESTED} test examples, which is at most {100 * MOST_TESTED:.0f} % of them"
            )
    if dev:
        parts["dev"] = round(min(TEST_SHARE, max(DEV_SHARE, 2 * MIN_ROWS / rows)), 2)
    return parts


def check_enough(rows: Mapping[str, int]) -> None:
    """Raises ``DataRefused`` where so little is left after preparation that no gate could judge by it."""
    for split, least in (("train", MIN_ROWS), ("dev", MIN_ROWS), ("test", LEAST_TESTED)):
        if rows.get(split, 0) < least:
            counts = ", ".join(f"{name} {count:,}" for name, count in rows.items())
            raise DataRefused(
                f"{rows.get(split, 0)} {split} examples are left once broken and repeated ones are gone ({counts}), and {least} are needed; bring more data"
            )


def dials_for(
    *, train: int, tested: int, lengths: list[int], layers: int, width: int, positions: int, in_bits: bool = False, in_words: bool = False, spans: bool = False
) -> Dials:
    """From the numbers of training and test examples, the sorted lengths of texts in tokens, and the base's layers, width and positions; ``in_bits``: for a model of
    language that is judged in bits per byte; ``in_words``: for one that is asked, and needs room for prompt and answer; ``spans``: for one that finds answers in a
    text, whose student keeps half of the layers and not a third: with a third it was not tried."""
    long = lengths[int(0.99 * (len(lengths) - 1))]
    fits = min(LENGTHS[1], positions)
    margin = margin_in_bits(tested) if in_bits else margin_for(tested)
    return Dials(
        epochs=next((epochs for rows, epochs in EPOCHS if train < rows), 2),
        learning_rate=f"{next((rate for most, rate in LEARNING_RATES if width <= most), SMALLEST_RATE):.1e}".replace("e-0", "e-"),
        max_length=fits if in_words else min(fits, max(LENGTHS[0], STEP * math.ceil(long / STEP))),
        layers=max(1, layers // (2 if spans else 3)),
        student_epochs=STUDENT_EPOCHS,
        margin=margin,
        loss_budget=round(2.5 * margin, 3),
        tested=tested,
        least_tested=min(USUALLY_TESTED, max(LEAST_TESTED, tested // 2)),
    )


def margin_for(tested: int) -> float:
    """The smallest loss, in steps of half a point and at least 2 points, that so many test examples can rule out 8 times in 10 when nothing is lost."""
    smallest = detectable(math.sqrt(FLIPS / tested), FIRST_LOOK, POWER, tested)
    return max(0.02, math.ceil(200 * smallest) / 200)


def margin_in_bits(tested: int) -> float:
    """The smallest loss in bits per byte, in steps of 0.005, that so many test texts can rule out 8 times in 10 when as much is lost as 8 bits may cost."""
    smallest = BITS + detectable(VARIES / math.sqrt(tested), FIRST_LOOK, POWER, tested)
    return math.ceil(200 * smallest) / 200
