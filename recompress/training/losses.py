"""What a network's numbers cost, by the kind of answer that its head gives. Trainings, methods that read labels or gradients, and proofs ask here.

    label    - ln p of the label, p = softmax(logits)                                        guess: the entropy of the labels' frequencies
    ends     the same of the two ends of an answer, whose labels are tokens                  guess: ln of the number of tokens

*each* is the loss of a unit (a text, a word, a token) that carries a label, and 0 for one that carries none; *apart* is how far a student's answer is from its
teacher's, 0 where they are the same; *guess* is the mean loss of whoever knows the answers' frequencies and nothing of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from recompress.benchmarks.scores import NO_LABEL
from recompress.models.heads import head_of

if TYPE_CHECKING:
    from recompress.models.checkpoint import Info

Labels = Tensor
"""As ``recompress.training.batches.collate`` pads them: numbers of labels ``[batch, units]``."""


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


ONE_LABEL = OneLabel()


def losses_of(info: Info) -> Losses:
    """The losses of a model, by the benchmark that it was made for."""
    return Ends() if head_of(info.benchmark).finds_spans else ONE_LABEL


def mean_loss(losses: Losses, logits: Float[Tensor, "batch units labels"], labels: Labels) -> Float[Tensor, ""]:
    """The mean over the units that carry a label; 0 where none does (transformers' own gives NaN)."""
    return losses.each(logits, labels).sum() / losses.carries(labels).sum().clamp(min=1)
