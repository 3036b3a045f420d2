"""The best choice within a budget, exactly: one option for each layer, the least damage in all, and no more bytes than there are.

    minimise  sum_i damage[i, c_i]      subject to  sum_i bytes[i, c_i] <= budget

Layer after layer, of all choices so far those are kept that no other beats in both bytes and damage: any best choice goes on from one of them.
Source: Nemhauser and Ullmann 1969, "Discrete dynamic programming and capital allocation"; the multiple-choice knapsack of Sinha and Zoltners 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Option(NamedTuple):
    """One way to store a layer."""

    size: int
    """Bytes."""
    damage: float


def best_choice(options: Sequence[Sequence[Option]], budget: int) -> list[int] | None:
    """For each layer the number of its option; of choices that damage equally one with the fewest bytes. ``None`` where nothing fits."""
    later = np.cumsum([0, *(min(option.size for option in layer) for layer in reversed(options))])[::-1]
    sizes: Int[np.ndarray, " kept"] = np.zeros(1, dtype=np.int64)
    damages: Float[np.ndarray, " kept"] = np.zeros(1)
    steps = []
    for layer, least in zip(options, later[1:], strict=True):
        size = (sizes[:, None] + np.array([option.size for option in layer])).ravel()
        damage = (damages[:, None] + np.array([option.damage for option in layer])).ravel()
        candidates = _unbeaten(size, damage, budget - int(least))
        steps.append((candidates // len(layer), candidates % len(layer)))
        sizes, damages = size[candidates], damage[candidates]
    if not len(sizes):
        return None
    place = int(damages.argmin())
    chosen = []
    for before, option in reversed(steps):
        chosen.append(int(option[place]))
        place = int(before[place])
    return chosen[::-1]


def _unbeaten(size: Int[np.ndarray, " n"], damage: Float[np.ndarray, " n"], budget: int) -> Int[np.ndarray, " kept"]:
    """Places of what fits and has less damage than everything that is as small."""
    order = np.lexsort((damage, size))
    order = order[size[order] <= budget]
    lowest = np.minimum.accumulate(np.concatenate([[np.inf], damage[order]]))[:-1]
    return order[damage[order] < lowest]
