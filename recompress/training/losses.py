"""What a network's numbers cost, by the kind of answer that its head gives. Trainings, methods that read labels or gradients, and proofs ask here.

    label    - ln p of the label, p = softmax(logits)                       apart: KL(teacher || student)
    ends     the same of the two ends of an answer, whose labels are tokens
    labels   the mean over labels of - ln p where the label holds, - ln (1 - p) elsewhere, p = sigmoid(logit)
             apart: the mean over labels of the KL of each
    number   ((answer - number) / sd)^2, sd: of the numbers that it learned  apart: the same of student and teacher

*each* is the loss of a unit (a text, a word, a token) that carries a label, and 0 for one that carries none; *apart* is how far a student's answer is from its
teacher's, 0 where they are the same; *guess* is the mean loss of whoever knows the answers' frequencies and nothing of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from recompress.benchmarks.scores import NO_LABEL
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info

Labels = Tensor
"""As ``recompress.training.batches.collate`` pads them: numbers of labels ``[batch, units]``, or ``[batch, units, labels]`` for flags and numbers."""


@runtime_checkable
class Losses(Protocol):
    """One kind of answer."""

    def carries(self, labels: Labels) -> Bool[Tensor, "batch units"]:
        """Which units carry a label."""

    def each(self, logits: Float[Tensor, "batch units labels"], labels: Labels) -> Float[Tensor, "batch units"]: ...

    def apart(self, student: Float[Tensor, "*units labels"], teacher: Float[Tensor, "*units labels"], *, temperature: float) -> Float[Tensor, "*units"]: ...

    def guess(self, features: Sequence[dict[str, Any]]) -> float: ...


class OneLabel:
    """One label of several for each unit: cross-entropy and Kullback-Leibler divergence, in nats."""

    def carries(self, labels: Labels) -> Bool[Tensor, "batch units"]:
        return labels != NO_LABEL

    def each(self, logits: Float[Tensor, "batch units labels"], labels: Labels) -> Float[Tensor, "batch units"]:
        return functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none")

    def apart(self, student: Float[Tensor, "*units labels"], teacher: Float[Tensor, "*units labels"], *, temperature: float) -> Float[Tensor, "*units"]:
        """KL(teacher || student), both softened by ``temperature``."""
        wanted, given = functional.log_softmax(teacher / temperature, dim=-1), functional.log_softmax(student / temperature, dim=-1)
        return (wanted.exp() * (wanted - given)).sum(dim=-1)

    def guess(self, features: Sequence[dict[str, Any]]) -> float:
        answers = np.concatenate([np.asarray(feature["labels"]) for feature in features])
        counts = np.unique(answers[answers != NO_LABEL], return_counts=True)[1]
        frequencies = counts / counts.sum()
        return float(-(frequencies * np.log(frequencies)).sum())


class Ends(OneLabel):
    """The beginning and the end of an answer, each one token of several: as above. Who knows nothing of the text takes any token."""

    def guess(self, features: Sequence[dict[str, Any]]) -> float:
        lengths = [len(feature["input_ids"]) for feature in features for label in feature["labels"] if label != NO_LABEL]
        return float(np.log(lengths).mean())


class SeveralLabels:
    """Any of several labels for each unit, each a question of its own: binary cross-entropy, in nats."""

    def carries(self, labels: Labels) -> Bool[Tensor, "batch units"]:
        return ~labels.isnan().any(dim=-1)

    def each(self, logits: Float[Tensor, "batch units labels"], labels: Labels) -> Float[Tensor, "batch units"]:
        known = labels.nan_to_num(nan=0.0)
        costs = functional.binary_cross_entropy_with_logits(logits.float(), known, reduction="none").mean(dim=-1)
        return torch.where(self.carries(labels), costs, 0.0)

    def apart(self, student: Float[Tensor, "*units labels"], teacher: Float[Tensor, "*units labels"], *, temperature: float) -> Float[Tensor, "*units"]:
        """Each label's KL(teacher || student), softened by ``temperature``, the mean over labels."""
        given, wanted = student / temperature, teacher / temperature
        p = wanted.sigmoid()
        holds = functional.logsigmoid(wanted) - functional.logsigmoid(given)
        fails = functional.logsigmoid(-wanted) - functional.logsigmoid(-given)
        return (p * holds + (1 - p) * fails).mean(dim=-1)

    def guess(self, features: Sequence[dict[str, Any]]) -> float:
        flags = np.array([row for feature in features for row in feature["labels"]], dtype=np.float64)
        p = flags[~np.isnan(flags).any(axis=1)].mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(-np.nan_to_num(p * np.log(p)).mean() - np.nan_to_num((1 - p) * np.log1p(-p)).mean())


@dataclass(frozen=True)
class Numbers:
    """A number for each unit: squared differences in units of ``spread``, the standard deviation of what was learned from."""

    spread: float = 1.0

    def carries(self, labels: Labels) -> Bool[Tensor, "batch units"]:
        return ~labels.isnan().any(dim=-1)

    def each(self, logits: Float[Tensor, "batch units 1"], labels: Labels) -> Float[Tensor, "batch units"]:
        away = (logits.float() - labels.nan_to_num(nan=0.0)) / self.spread
        return torch.where(self.carries(labels), away.square().mean(dim=-1), 0.0)

    def apart(self, student: Float[Tensor, "*units 1"], teacher: Float[Tensor, "*units 1"], *, temperature: float) -> Float[Tensor, "*units"]:
        """Divided by the temperature's square, which the loss multiplies with again: nothing is softened about a number."""
        return ((student - teacher) / (self.spread * temperature)).square().mean(dim=-1)

    def guess(self, features: Sequence[dict[str, Any]]) -> float:
        numbers = np.array([row for feature in features for row in feature["labels"]], dtype=np.float64)
        return float((numbers[~np.isnan(numbers)] / self.spread).var())


ONE_LABEL, ENDS, SEVERAL_LABELS = OneLabel(), Ends(), SeveralLabels()


def losses_of(info: Info) -> Losses:
    """The losses of a model, by the benchmark that it was made for, and for one that answers with numbers by their spread."""
    answer = head_of(info.benchmark).answer
    if answer == "number":
        return Numbers(info.standard[1] if info.standard else 1.0)
    kinds: dict[str, Losses] = {"labels": SEVERAL_LABELS, "span": ENDS}
    return kinds.get(answer, ONE_LABEL)


def mean_loss(losses: Losses, logits: Float[Tensor, "batch units labels"], labels: Labels) -> Float[Tensor, ""]:
    """The mean over the units that carry a label; 0 where none does (transformers' own gives NaN)."""
    return losses.each(logits, labels).sum() / losses.carries(labels).sum().clamp(min=1)
