"""What is left of a test split, in words: how many looks it had, at what level the next is judged, and from which margin on a good candidate would still pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recompress.gate.levels import LADDERS, Past, budget_of, next_level, used
from recompress.gate.spread import detectable_by
from recompress.gate.statistics import error_behind
from recompress.records import Loss, Verdict

NEARLY = 0.8
"""A line warns when a candidate that loses nothing would need more than this part of the margin."""


def left_after(history: Sequence[Past], verdict: Verdict | None, *, alpha: float, power: float) -> dict[str, Any]:
    """``looks``, ``refused``, ``used`` (of the budget, 0 to 1), the ``next_levels``, ``warning``, and ``told``: all of it in a line or two. Empty without looks.

    ``verdict`` is one of those that were just reached; from its spread follows what a candidate like it could still show, ``passes_from`` for each comparison.
    """
    if not history:
        return {}
    levels = {"first": next_level(history, LADDERS[:1], alpha), "others": next_level(history, LADDERS[1:], alpha)}
    needs = [(loss, _needed(loss, levels["first"], power)) for loss in (verdict.losses if verdict else ()) if not loss.slice]
    tightest = max(needs, key=lambda need: need[1] / need[0].margin, default=None)
    refused = sum(not past.proven for past in history)
    told = (
        f"This test split has had {_counted(len(history), 'look')}, {refused} of them refused; {100 * used(history):.2g} % of its error budget of "
        f"{100 * budget_of(history, alpha):.3g} % is used up. The next run's safest finalist is judged at {100 * levels['first']:.2g} %, "
        f"the others at {100 * levels['others']:.2g} %"
    )
    warning = ""
    if tightest is not None:
        loss, margin = tightest
        told += (
            f": a candidate like {verdict.candidate if verdict else ''} that loses nothing passes from a margin of {margin:.4f} on against the {loss.against}"
        )
        told += f" (the policy's is {loss.margin:.4f})"
        if margin > loss.margin:
            warning = "Nothing more can be expected to pass: this test split is worn out for this margin. Only fresh test data, or more of it, changes that."
        elif margin > NEARLY * loss.margin:
            warning = "This test split is running down: prepare fresh test data, or more of it."
    return {
        "looks": len(history),
        "refused": refused,
        "used": used(history),
        "next_levels": levels,
        "passes_from": {loss.against: margin for loss, margin in needs},
        "warning": warning,
        "told": f"{told}." + (f" {warning}" if warning else ""),
    }


def _needed(loss: Loss, level: float, power: float) -> float:
    """The smallest margin at which a candidate with this spread that loses nothing passes at ``level`` as often as ``power``."""
    examples = loss.worth or loss.examples
    error = error_behind(loss.smallest_detectable, lambda error: detectable_by(loss.trainings, error, 1 - loss.confidence, power, examples))
    return detectable_by(loss.trainings, error, level, power, examples)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
