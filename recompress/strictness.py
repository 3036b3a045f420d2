"""Which of two policies asks for more? Every dial has a direction, so that a pinned policy can be made stricter by a recipe and never laxer.

A dial without a direction is a hole in the pin: ``tests/test_strictness.py`` goes through all fields of ``Policy`` and asks for one each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from recompress.policy import HOW, Policy

Stricter = Callable[[Any, Any], bool]
"""``allowed(value, pinned)``: whether a value asks for at least as much as the pinned one. ``None`` asks for nothing."""


def at_most(value: Any, pinned: Any) -> bool:
    """A ceiling: the smaller, the stricter; none at all is the laxest."""
    return pinned is None or (value is not None and value <= pinned)


def at_least(value: Any, pinned: Any) -> bool:
    """A floor: the larger, the stricter; none at all is the laxest."""
    return pinned is None or (value is not None and value >= pinned)


def same(value: Any, pinned: Any) -> bool:
    """Another value is neither stricter nor laxer but something else, so it needs a new pin."""
    return bool(value == pinned)


def free(value: Any, pinned: Any) -> bool:
    """Nothing passes by this dial that would not pass without it."""
    return True


def each_at_most(value: Mapping[str, float] | None, pinned: Mapping[str, float] | None) -> bool:
    """Margins of slices: none that is pinned may be left out or widened; more of them may be named."""
    return pinned is None or (value is not None and all(name in value and value[name] <= margin for name, margin in pinned.items()))


def no_machine_less(value: Mapping[str, str] | None, pinned: Mapping[str, str] | None) -> bool:
    """The pinned class of machine, or a narrower one."""
    return pinned is None or (value is not None and pinned.items() <= value.items())


def in_order(*laxest_first: Any) -> Stricter:
    """Words, from the laxest to the strictest."""
    return lambda value, pinned: laxest_first.index(value) >= laxest_first.index(pinned)


DIRECTIONS: dict[str, tuple[Stricter, str]] = {
    "metric": (same, "the pinned metric"),
    "at_least": (at_least, "at least as high"),
    "baseline.margin": (at_most, "at most as wide"),
    "baseline.slices": (each_at_most, "every pinned slice, at most as wide"),
    "champion.margin": (at_most, "at most as wide"),
    "champion.slices": (each_at_most, "every pinned slice, at most as wide"),
    "loss_budget": (at_most, "at most as large"),
    "confidence": (at_least, "at least as high"),
    "power": (at_least, "at least as high"),
    "draws": (at_least, "at least as many"),
    "seed": (same, "the pinned seed: whoever may choose the draws may choose the luckiest"),
    "first_promotion": (in_order("allowed", "refused"), "refused where that is pinned"),
    "min_examples.overall": (at_least, "at least as many"),
    "min_examples.per_slice": (at_least, "at least as many"),
    "finalists": (at_most, "at most as many"),
    "trainings": (at_least, "at least as many"),
    "limits.size_bytes": (at_most, "at most as many"),
    "limits.times_smaller": (at_least, "at least as much"),
    "limits.times_faster": (at_least, "at least as much"),
    "limits.times_faster_writing": (at_least, "at least as much"),
    "limits.peak_memory_bytes": (at_most, "at most as many"),
    "limits.steady_memory_bytes": (at_most, "at most as many"),
    "limits.latency_p95_ms": (at_most, "at most as long"),
    "limits.throughput_per_s": (at_least, "at least as many"),
    "limits.machine": (no_machine_less, "the pinned machine"),
    "limits.against": (same, "the pinned comparison"),
    "limits.caches": (same, "the pinned comparison"),
    "choose": (free, "any: it chooses among those that passed"),
    "approval.mode": (in_order("none", "required"), "required where that is pinned"),
    "approval.expires_after_hours": (at_most, "at most as long"),
    "approval.not_the_author": (in_order(False, True), "true where that is pinned"),
    "approval.signed": (in_order(False, True), "true where that is pinned"),
}
"""For each dial, what a recipe's value must be beside the pinned one. The order of ``Policy``."""


class Laxer(NamedTuple):
    """A dial that asks for less than the pin does."""

    dial: str
    value: Any
    pinned: Any
    wanted: str

    def __str__(self) -> str:
        return f"{self.dial} is {_plain(self.value)}, pinned is {_plain(self.pinned)} ({self.wanted})"


def laxer_dials(policy: Policy, pinned: Policy) -> list[Laxer]:
    """Every dial by which ``policy`` asks for less than ``pinned``; empty when it is as strict or stricter everywhere."""
    ours, theirs = dials_of(policy), dials_of(pinned)
    if pinned.approval.mode == "none":  # then nobody is asked, and how they would be asked says nothing
        theirs = {dial: ours[dial] if dial.startswith("approval.") and dial != "approval.mode" else value for dial, value in theirs.items()}
    for dial, ratios in HOW.items():  # and what a limit that is not there would compare with says nothing either
        if all(theirs[f"limits.{ratio}"] is None for ratio in ratios):
            theirs |= {f"limits.{dial}": ours[f"limits.{dial}"]}
    return [Laxer(dial, ours[dial], theirs[dial], wanted) for dial, (allowed, wanted) in DIRECTIONS.items() if not allowed(ours[dial], theirs[dial])]


def dials_of(policy: Policy) -> dict[str, Any]:
    """Every dial by its dotted name. A group that is left out (``limits``) has ``None`` for each of its dials."""
    return {dial: _at(policy, dial.split(".")) for dial in DIRECTIONS}


def _at(values: Any, names: list[str]) -> Any:
    for name in names:
        values = None if values is None else getattr(values, name)  # and not as it is written, where a later dial is left out while it has its default
    return values


def _plain(value: Any) -> str:
    if value is None:
        return "not there"
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, Mapping) else str(value)
