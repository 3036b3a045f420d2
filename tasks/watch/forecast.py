"""``recompress plan``: what a run would do now, and why: every source with what is pinned and what is there, and every step of the run. Nothing is
written but, for the next look, what was read of the recipe's steps (``recompress.methods.known_chains``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recompress.watch.decide import short
from recompress.watch.settings import read_watch_settings
from recompress.watch.sources import Sight
from tasks.running.home import check_name
from tasks.running.recompression import read_plan
from tasks.steps.rehearsal import Foreseen, Rehearsal, Rehearsed, rehearse
from tasks.watch.look import look_at_sources

SIGNS = {"found": "✓", "changed": "~", "new": "+", "unknown": "?"}


@dataclass(frozen=True)
class Forecast:
    """What a run of a recipe would do now."""

    recipe: str
    sights: list[Sight]
    run: Rehearsed

    @property
    def to_do(self) -> list[Foreseen]:
        """The steps that would not be found again."""
        return [step for step in self.run.steps if step.state != "found"]

    @property
    def seconds(self) -> float | None:
        """How long these took last time, together; ``None`` where nobody knows of any."""
        known = [step.seconds for step in self.to_do if step.seconds is not None]
        return sum(known) if known else None

    def as_json(self) -> dict[str, Any]:
        counts = {state: sum(step.state == state for step in self.run.steps) for state in ("found", "changed", "new")}
        return {
            "recipe": self.recipe,
            "sources": [sight.as_json() for sight in self.sights],
            "steps": [asdict(step) | {"because": list(step.because)} for step in self.run.steps],
            **counts,
            "seconds_last_time": self.seconds,
            "then": self.run.then,
            "refused": self.run.refused,
        }

    def text(self) -> str:
        """The same for a person."""
        width = max((len(step.step) for step in self.run.steps), default=0)
        lines = ["Sources", *(_source(sight) for sight in self.sights)]
        lines += ["Steps", *(_step(step, width) for step in self.run.steps)] if self.run.steps else []
        known = self.seconds
        last = f", which took {known:.0f} s last time" if known is not None else ""
        lines.append(f"{len(self.run.steps) - len(self.to_do)} steps are found, {len(self.to_do)} have to be done{last}.")
        if self.run.refused:
            lines.append(f"A run would be refused: {self.run.refused}")
        elif self.run.then:
            lines.append(f"Then: {self.run.then}.")
        return "\n".join(lines)


def forecast(root: Path, recipe: str) -> Forecast:
    """Look at the sources and rehearse the run. Raises ``InputError`` for a recipe that cannot be read, ``IntegrityError`` for a ledger that does not hold."""
    plan = read_plan(recipe, root, looks=True)
    check_name(root, plan)
    sights = look_at_sources(root, plan, read_watch_settings(root))
    return Forecast(plan.recipe.name, sights, rehearse(Rehearsal(root, plan)))


def _source(sight: Sight) -> str:
    pinned, now = short(sight.pinned_digest or sight.source.pinned) or "–", short(sight.digest) or "–"
    detail = sight.away or sight.waits
    at = f" ({short(sight.revision)})" if sight.moved else ""
    return f"  {sight.source.name:<18} {sight.source.place:<44} pinned {pinned:<14} now {now:<14} {sight.state}{at}{f': {detail}' if detail else ''}"


def _step(step: Foreseen, width: int) -> str:
    took = "" if step.seconds is None else f"{step.seconds:8.1f} s"
    because = f"  because of {'; '.join(step.because)}" if step.because else ""
    return f"  {SIGNS[step.state]} {step.step:<{width}}  {step.state:<8}{took:>11}{because}"
