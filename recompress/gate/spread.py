"""The loss of a recipe from several trainings: the bound over examples, widened by what trainings differ (``recompress.gate.trainings`` gives the formula)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from recompress.gate.statistics import NORMAL, LossEstimate, Metric, loss_of


@dataclass(frozen=True)
class RecipeEstimate(LossEstimate):
    """A mean loss over trainings and what the bootstrap says of it, with the loss of each training."""

    losses: tuple[float, ...] = ()

    @property
    def spread(self) -> float:
        """Standard deviation of the trainings' losses."""
        return float(np.std(self.losses, ddof=1))

    def upper(self, alpha: float) -> float:
        return self.loss + float(np.hypot(super().upper(alpha) - self.loss, self._between(alpha)))

    def smallest_detectable(self, alpha: float, power: float) -> float:
        """As for one training; the spread between trainings is taken to be what was seen."""
        reach = NORMAL.inv_cdf(power)
        examples = super().smallest_detectable(alpha, power) - reach * self.standard_error
        return reach * float(np.hypot(self.standard_error, self._error)) + float(np.hypot(examples, self._between(alpha)))

    @property
    def _error(self) -> float:
        return self.spread / float(np.sqrt(len(self.losses)))

    def _between(self, alpha: float) -> float:
        """Student's bound of the mean over trainings."""
        from scipy.special import stdtrit

        quantile: Any = stdtrit(len(self.losses) - 1, 1 - alpha)
        return float(quantile) * self._error


def of_recipe(
    estimate: LossEstimate, ours: Float[np.ndarray, " trainings*k"], theirs: Float[np.ndarray, " trainings*k"], metric: Metric, trainings: int
) -> LossEstimate:
    """The estimate of a mean loss, with the loss of each training from summed counts that stand side by side. One training is what it was."""
    if trainings == 1:
        return estimate
    pairs = zip(np.split(ours, trainings), np.split(theirs, trainings), strict=True)
    losses = tuple(float(loss_of(np.concatenate(pair), metric)) for pair in pairs)
    return RecipeEstimate(**{field.name: getattr(estimate, field.name) for field in fields(LossEstimate)}, losses=losses)
