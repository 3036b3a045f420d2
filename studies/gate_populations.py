"""Invented pairs of models whose true loss is known exactly, so that the gate's decisions can be called right or wrong.

Each function draws the counts of ``n`` examples for a candidate and for the model beside it. ``loss`` is the true loss in points of the metric; ``churn`` is
how often the candidate mends what the other had wrong, so that the two differ by more than the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
RIGHT = 0.8
"""Share of units that the other model gets right."""
ENTITIES, ENTITY_SHARE = np.array([0, 1, 2, 3, 4, 6, 8]), np.array([0.45, 0.2, 0.15, 0.1, 0.06, 0.03, 0.01])
"""Entities in a sentence: most sentences have none, as in MasakhaNER."""
SPURIOUS = 0.25
"""Wrong entities that a model finds in a sentence, on average."""
CLASS_SHARE = np.array([0.02, 0.03, 0.05, 0.05, 0.1, 0.1, 0.1, 0.15, 0.2, 0.2])


class Population(NamedTuple):
    draw: Callable[[np.random.Generator, int, float, float], Pair]
    metric: Callable[[np.ndarray], np.ndarray]
    columns: str


def accuracy(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def f1(totals: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


def macro_f1(totals: np.ndarray) -> np.ndarray:
    classes = totals.shape[-1] // 3
    with np.errstate(invalid="ignore", divide="ignore"):
        return (2 * totals[..., :classes] / (totals[..., classes : 2 * classes] + totals[..., 2 * classes :])).mean(-1)


def texts(rng: np.random.Generator, n: int, loss: float, churn: float) -> Pair:
    """Right or wrong as a whole: ``loss + churn`` of the texts are lost, ``churn`` are won."""
    u, lost = rng.random(n), loss + churn
    won, both = (u >= lost) & (u < lost + churn), (u >= lost + churn) & (u < churn + RIGHT)
    ones = np.ones(n, dtype=np.int64)
    return np.stack([won | both, ones], 1).astype(np.int64), np.stack([(u < lost) | both, ones], 1).astype(np.int64)


def sentences(rng: np.random.Generator, n: int, loss: float, churn: float, *, whole: bool = False) -> Pair:
    """Entities: each one found is lost with one chance, or, where ``whole``, all those of a sentence together."""
    mean = float(ENTITIES @ ENTITY_SHARE)

    def true_f1(lost: float) -> float:
        true_positives = mean * (RIGHT * (1 - lost) + (1 - RIGHT) * churn)
        return 2 * true_positives / (true_positives + SPURIOUS + mean)

    start = 2 * mean * RIGHT / (mean * RIGHT + SPURIOUS + mean)
    lost = _solve(lambda chance: start - true_f1(chance), loss)
    gold = rng.choice(ENTITIES, n, p=ENTITY_SHARE)
    theirs = rng.binomial(gold, RIGHT)
    retained = np.where(rng.random(n) < lost, 0, theirs) if whole else rng.binomial(theirs, 1 - lost)
    ours = retained + rng.binomial(gold - theirs, churn)
    wrong = rng.poisson(SPURIOUS, n)
    other_wrong = np.where(rng.random(n) < (0.8 if churn else 1.0), wrong, rng.poisson(SPURIOUS, n))
    return np.stack([ours, ours + other_wrong, gold], 1), np.stack([theirs, theirs + wrong, gold], 1)


def clustered_sentences(rng: np.random.Generator, n: int, loss: float, churn: float) -> Pair:
    return sentences(rng, n, loss, churn, whole=True)


def rare_classes(rng: np.random.Generator, n: int, loss: float, churn: float) -> Pair:
    """Ten classes, the rarest 2 %; macro F1, where one text of a rare class weighs as much as ten of a common one."""
    classes = len(CLASS_SHARE)

    def true_f1(right: float) -> float:
        true_positives = CLASS_SHARE * right
        wrong = CLASS_SHARE * (1 - right)
        predicted = true_positives + (wrong.sum() - wrong) / (classes - 1)
        return float((2 * true_positives / (predicted + CLASS_SHARE)).mean())

    lost = _solve(lambda chance: true_f1(RIGHT) - true_f1(RIGHT * (1 - chance) + (1 - RIGHT) * churn), loss)
    gold = rng.choice(classes, n, p=CLASS_SHARE)

    def mistaken() -> np.ndarray:
        return (gold + rng.integers(1, classes, n)) % classes

    theirs = np.where(rng.random(n) < RIGHT, gold, mistaken())
    u = rng.random(n)
    ours = np.where(theirs == gold, np.where(u < lost, mistaken(), gold), np.where(u < churn, gold, theirs))
    one_hot = np.eye(classes, dtype=np.int64)

    def counts(predicted: np.ndarray) -> np.ndarray:
        return np.concatenate([one_hot[predicted] * (predicted == gold)[:, None], one_hot[predicted], one_hot[gold]], 1)

    return counts(ours), counts(theirs)


def _solve(grows: Callable[[float], float], target: float) -> float:
    """The chance in [0, 1] at which a growing function reaches ``target``."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if grows(middle) < target else (low, middle)
    return low


POPULATIONS = {
    "accuracy": Population(texts, accuracy, "right, all"),
    "F1": Population(sentences, f1, "found, predicted, gold"),
    "F1, whole sentences lost": Population(clustered_sentences, f1, "found, predicted, gold"),
    "macro F1, rare classes": Population(rare_classes, macro_f1, "found, predicted, gold of ten classes"),
}
