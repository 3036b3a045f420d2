"""At what level is the next look at a test split judged, so that all looks together pass a bad candidate with probability ``budget`` at most?

There are two ladders with endless steps, and a level on each:

    level of step k = budget / 2 * g(k)        g(k) = c / ((k + 1) ln(k + 1)^2),   c so that all g together are 1

The first finalist of each run stands on the ladder ``first``, the others on the ladder ``others``, and a sole finalist on both: its level is their sum. Each takes
the lowest step that is free. A look that is refused keeps its step for ever; a look that proves its candidate gives it back. So a candidate that passes costs
nothing, and an ambitious one that fails every night does not wear out the level at which the safest one is judged.

**Why the promise holds**, however the looks depend on each other. Let B be the looks at bad candidates. (1) A proof of any other look frees a step and takes none,
so no later look ever stands higher up than it would without it: the levels only grow with proofs. (2) Suppose that all looks outside B prove their candidates, and none
of B does: then each of B holds a step of its own, and their levels w sum to ``budget`` at most. By (1), until a first one of B passes, none of B has a level above
its w. So a bad candidate passes only if its p-value is w or less for one of B, and by Bonferroni's inequality that has probability ``budget`` at most.

This is closed testing with weighted Bonferroni tests (Marcus, Peritz and Gabriel 1976, Biometrika 63:655-660) in its online form (Fischer, Bofill Roig and Brannath
2024, "The online closure principle", Annals of Statistics 52:817-841), and one of the graphs of Bretz et al. 2009 (Statistics in Medicine 28:586-604): a proof hands
its level on to all later looks of its ladder. It belongs to the family of the online fallback procedure (Tian and Ramdas 2021, "Online control of the familywise error
rate", Statistical Methods in Medical Research 30:976-993; Wiens 2003, Pharmaceutical Statistics 2:211-215), which hands it to the next look alone, where one unlucky
night loses it. ``docs/gate.md`` says why not others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import NamedTuple

from recompress.records import Look

LADDERS = ("first", "others")
TOTAL = 2.109743
"""The sum of 1 / (k ln(k)^2) from k = 2 on, rounded up in its last digit: no more than the budget is ever given out."""


class Past(NamedTuple):
    """A look that was had, and whether it proved that its candidate loses less than the margins; ``None`` while that is not known yet."""

    look: Look
    proven: bool | None


def share(step: int) -> float:
    """The part of a ladder's budget that belongs to its step 1, 2, …"""
    return 1 / (TOTAL * (step + 1) * log(step + 1) ** 2)


def ladders_of(place: int, finalists: int) -> tuple[str, ...]:
    """The ladders on which the finalist at ``place`` (0 is the first) of so many stands."""
    return LADDERS if finalists == 1 else LADDERS[:1] if place == 0 else LADDERS[1:]


def level_of(steps: Iterable[int], budget: float) -> float:
    """The level of a look that stands on these steps."""
    return budget / len(LADDERS) * sum(share(step) for step in steps)


def lowest_free(ladder: str, history: Iterable[Past]) -> int:
    """The lowest step that no look holds. One whose outcome is not known yet holds its step as if it had been refused."""
    held = {past.look.steps[ladder] for past in history if ladder in past.look.steps and not past.proven}
    return next(step for step in range(1, len(held) + 2) if step not in held)


def budget_of(history: Sequence[Past], alpha: float) -> float:
    """What all looks share: the error rate of the policy that looked first, or less where this one asks for less. None can ask for more."""
    return min([alpha, *(past.look.budget for past in history)])


def next_level(history: Sequence[Past], ladders: Iterable[str], alpha: float) -> float:
    """The level of the next look, if it stood on these ladders."""
    return level_of([lowest_free(ladder, history) for ladder in ladders], budget_of(history, alpha))


def next_look(history: Sequence[Past], *, key: str, model: str, split: str, candidate_sha256: str, ladders: Iterable[str], alpha: float) -> Look:
    """The look that follows on ``history``, which holds all looks so far at this split for this model."""
    steps = {ladder: lowest_free(ladder, history) for ladder in ladders}
    budget = budget_of(history, alpha)
    return Look(
        key=key,
        model=model,
        split=split,
        candidate_sha256=candidate_sha256,
        number=len(history) + 1,
        steps=steps,
        budget=budget,
        level=level_of(steps.values(), budget),
    )


def used(history: Iterable[Past]) -> float:
    """The part of the budget that refused looks have used up, 0 to 1."""
    return sum(share(step) for past in history if not past.proven for step in past.look.steps.values()) / len(LADDERS)
