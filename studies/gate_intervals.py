"""Upper bounds that the gate does not use, to be compared with the one that it does."""

from __future__ import annotations

import numpy as np

from recompress.gate.statistics import NORMAL, LossEstimate, Metric, Stratum, loss_of

STEP = 1e-4


def bounds(estimate: LossEstimate, stratum: Stratum, totals: np.ndarray, weights: np.ndarray | None, metric: Metric, alpha: float) -> dict[str, float]:
    """The upper bound of the loss by each method, the gate's own (``BCa + score``) last. ``weights`` of the draws only where studentizing is wanted."""
    z, loss, draws, n = -NORMAL.inv_cdf(alpha), estimate.loss, estimate.draws, estimate.examples
    percentile = _at(draws, 1 - alpha)
    bca = estimate._quantile(z)
    score = z * z / (2 * n)
    upper_bounds = {
        "percentile": percentile,
        "basic": 2 * loss - _at(draws, alpha),
        "normal": loss + z * estimate.standard_error,
        "BCa": bca,
        "studentized": _studentized(loss, stratum, totals, weights, metric, alpha) if weights is not None else float("nan"),
        "percentile + score": loss + score + float(np.hypot(max(percentile - loss, 0), score)),
    }
    return upper_bounds | {"BCa + score": estimate.upper(alpha)}


def _at(draws: np.ndarray, share: float) -> float:
    return float(draws[min(int(np.ceil(share * (len(draws) + 1))), len(draws)) - 1])


def _studentized(loss: float, stratum: Stratum, totals: np.ndarray, weights: np.ndarray, metric: Metric, alpha: float) -> float:
    """The bootstrap-t bound; every draw's standard error by the delta method."""
    observed = (stratum.times @ stratum.rows)[None]
    error = _delta_errors(observed, stratum.times[None].astype(float), stratum, metric)[0]
    errors = _delta_errors(totals, weights, stratum, metric)
    away = loss_of(totals, metric) - loss
    t = np.where(errors > 1e-12, away / np.where(errors > 1e-12, errors, 1), np.where(away < -1e-12, -np.inf, 0))
    return loss - error * float(np.quantile(np.sort(t), alpha, method="lower"))


def _delta_errors(totals: np.ndarray, weights: np.ndarray, stratum: Stratum, metric: Metric) -> np.ndarray:
    n, width = stratum.examples, totals.shape[-1]
    base, step = loss_of(totals, metric), STEP * stratum.examples
    slopes = np.stack([(loss_of(totals + step * np.eye(width)[j], metric) - base) / step for j in range(width)], -1)
    products = (stratum.rows[:, :, None] * stratum.rows[:, None, :]).reshape(len(stratum.rows), -1)
    spread = (weights @ products).reshape(-1, width, width) - totals[:, :, None] * totals[:, None, :] / n
    return np.sqrt(np.maximum(np.einsum("di,dij,dj->d", slopes, spread, slopes), 0))
