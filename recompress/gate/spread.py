"""The loss of a recipe from several trainings: the bound over examples, widened by what trainings differ (``recompress.gate.trainings`` gives the formula)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from recompress.gate.statistics import NORMAL, LossEstimate, Metric, detectable, loss_of


@dataclass(frozen=True)
class RecipeEstimate(LossEstimate):
    """A mean loss over trainings and what the bootstrap says of it, with the loss of each training."""

    losses: tuple[float, ...] = ()

    def upper(self, alpha: float) -> float:
        return self.loss + float(np.hypot(super().upper(alpha) - self.loss, between(self.losses, alpha)))

    def smallest_detectable(self, alpha: float, power: float) -> float:
        """As for one training; the spread between trainings is taken to be what was seen."""
        return detectable_by(self.losses, self.standard_error, alpha, power, self.worth or self.examples)


def between(losses: Sequence[float], alpha: float) -> float:
    """Student's bound of the mean over trainings, less the mean."""
    from scipy.special import stdtrit

    quantile: Any = stdtrit(len(losses) - 1, 1 - alpha)
    return float(quantile) * error_of(losses)


def error_of(losses: Sequence[float]) -> float:
    """Standard error of the mean over trainings."""
    return float(np.std(losses, ddof=1)) / float(np.sqrt(len(losses)))


def detectable_by(losses: Sequence[float], error: float, alpha: float, power: float, examples: float) -> float:
    """``LossEstimate.smallest_detectable`` of a mean loss over the trainings that lost so much each, ``error`` over so many examples; without trainings of one loss."""
    plain = detectable(error, alpha, power, examples)
    if not losses:
        return plain
    reach = NORMAL.inv_cdf(power)
    return reach * float(np.hypot(error, error_of(losses))) + float(np.hypot(plain - reach * error, between(losses, alpha)))


def of_recipe(
    estimate: LossEstimate, ours: Float[np.ndarray, " trainings*k"], theirs: Float[np.ndarray, " trainings*k"], metric: Metric, trainings: int
) -> LossEstimate:
    """The estimate of a mean loss, with the loss of each training from summed counts that stand side by side. One training is what it was."""
    if trainings == 1:
        return estimate
    pairs = zip(np.split(ours, trainings), np.split(theirs, trainings), strict=True)
    losses = tuple(float(loss_of(np.concatenate(pair), metric)) for pair in pairs)
    return RecipeEstimate(**{field.name: getattr(estimate, field.name) for field in fields(LossEstimate)}, losses=losses)
