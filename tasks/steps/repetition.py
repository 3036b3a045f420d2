"""A run that finds everything: the lines of the flow as they are, with a recompression that looks each step up, and gives up before it would do the first one.

Such a run needs no Prefect and no server, whose start takes longer than all of it. What it comes to is what any run comes to that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recompress.recipe import Plan
from tasks.running.recompression import Outcome, Recompression, Wanted
from tasks.steps.at_hand import bases_are_at_hand, data_is_at_hand
from tasks.tracking.track import Result


class SomethingToDo(Exception):
    """There is a step to be done, or something to be changed: its name."""


class Repetition(Recompression):
    """A recompression that changes nothing. What it would say is said once it has come to its end."""

    by_prefect = False

    def __init__(self, root: Path, plan: Plan) -> None:
        super().__init__(root, plan)
        self._unsaid: list[str] = []

    def repeat(self, lines: Callable[[Recompression], Outcome]) -> Outcome | None:
        """What came of the lines; ``None`` where a run has something to do."""
        if not (self.store.exists and data_is_at_hand(self) and bases_are_at_hand(self)):
            return None
        try:
            outcome = lines(self)
        except SomethingToDo:
            return None
        for line in self._unsaid:
            super().say(line)
        return outcome

    def say(self, line: str) -> None:
        self._unsaid.append(line)

    def begins(self, what: str) -> None:
        """Raises ``SomethingToDo``."""
        raise SomethingToDo(what)

    def note(self, kind: str, key: str, body: dict[str, object]) -> None:
        if self.ledger.last(kind, key=key) is None:
            raise SomethingToDo(kind)

    def obtain(self, step: Wanted) -> Result:
        """Raises ``SomethingToDo`` for a step that would not be found."""
        found = self.known(step.name, step.key, step.doubt)
        if found is None:
            raise SomethingToDo(step.name)
        return self._found(step, found)
