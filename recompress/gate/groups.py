"""Examples that belong together: are the data's groups there, and are there enough of them for a bound to be drawn from?

A bootstrap that draws groups knows as many things as there are groups, whatever they hold. Below ``FEWEST`` its bounds are not what they promise
(``studies/gate_groups.py``). Groups of very different sizes count for less than their number: Kish's effective number, as in ``statistics.worth_of``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recompress.gate.measured import Expected, Measured
from recompress.gate.reasons import refused
from recompress.gate.statistics import kish
from recompress.policy import Policy
from recompress.records import Finding

FEWEST = 50
"""Groups of equal size, on the whole split and in every slice that is judged; what the bounds were checked down to."""


def check_named(role: str, model: Measured, expected: Expected) -> Iterator[Finding]:
    """A refusal when the predictions do not name the groups that the test split has."""
    named = 0 if model.groups is None else len(set(model.groups))
    if named != expected.groups:
        yield refused(
            role,
            "groups-missing",
            f"the predictions of the {role} name {named:,} groups, the test split holds {expected.groups:,}; measure it again",
            measured=float(named),
            limit=float(expected.groups),
        )


def check_enough(policy: Policy, candidate: Measured) -> Iterator[Finding]:
    """A refusal for the whole split, and for each judged slice, whose groups are worth fewer than ``FEWEST``."""
    if candidate.groups is None:
        return
    judged = sorted({name for side in (policy.baseline, policy.champion) for name in side.slices or ()})
    for name in ("", *judged):
        groups = [group for group, part in zip(candidate.groups, candidate.slices, strict=True) if name in ("", part)]
        if groups and worth(groups) < FEWEST:
            yield refused(
                f"groups/{name}" if name else "groups",
                "too-few-groups",
                f"{len(groups):,} test examples{f' of {name}' if name else ''} come from {len(set(groups)):,} groups, worth {worth(groups):.1f} of equal size; "
                f"{FEWEST} are the least that a bound can be drawn from: take test examples from more groups",
                measured=worth(groups),
                limit=float(FEWEST),
            )


def worth(groups: Sequence[int]) -> float:
    """How many groups of equal size these are worth; the number of groups where all are equally large."""
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    return kish(int(sizes.sum()), int((sizes * sizes).sum()))
