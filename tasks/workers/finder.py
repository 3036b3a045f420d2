"""What a variant still lacks: its steps asked for in order, each found or named as missing, and none of them done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recompress.records import DatasetRef, ModelRef
from tasks.running.recompression import Recompression, Wanted
from tasks.steps.compress import compress_step
from tasks.tracking.track import Result


class Missing(Exception):
    """A step that nobody has done yet, with the name of the MLflow run that it writes to."""

    def __init__(self, name: str, key: str, run: str) -> None:
        super().__init__(name)
        self.name, self.key, self.run = name, key, run


class Finder(Recompression):
    """The same recompression, with all that it has open; its steps are looked up. What it finds is counted when the run itself comes to it."""

    by_prefect = False

    def __init__(self, run: Recompression) -> None:
        _ = run.ledger, run.memory  # opened once, for both
        self.__dict__.update(run.__dict__)
        self.claims, self.reused = {}, []

    def say(self, line: str) -> None: ...

    def obtain(self, step: Wanted) -> Result:
        """Raises ``Missing``."""
        found = self.known(step.name, step.key, step.doubt)
        if found is None:
            raise Missing(step.name, step.key, step.run)
        return found


@dataclass
class Chain:
    """How far a variant has come: the model after ``done`` of its steps, and what it lacks next."""

    variant: str
    teachers: frozenset[str]
    """The variants that have to be there before it."""
    length: int
    model: ModelRef | None = None
    done: int = 0
    missing: Missing | None = None

    @property
    def left(self) -> int:
        return self.length - self.done

    def go_on(self, finder: Finder, models: Sequence[ModelRef], dataset: DatasetRef) -> None:
        """As far as its steps are found. ``models`` are the baseline and those that may teach."""
        model = self.model or models[0]
        self.missing = None
        try:
            while self.left:
                step = finder.plan.steps[self.variant][self.done]
                model = compress_step(finder, self.variant, self.done + 1, step, model, models, dataset)
                self.model, self.done = model, self.done + 1
        except Missing as missing:
            self.missing = missing


def chains_of(run: Recompression, names: list[str]) -> list[Chain]:
    """Variants in the recipe's order, each with those that teach it."""
    taught_by = {name: frozenset(teacher for step in run.plan.steps[name] if (teacher := getattr(step.config, "teacher", None))) for name in names}
    return [Chain(name, taught_by[name], len(run.plan.steps[name])) for name in names]
