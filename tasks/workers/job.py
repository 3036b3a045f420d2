"""What a worker is told: one step, by its key, with the digests of all that it begins with. Nothing else passes between a run and its workers but MLflow's
artifacts and the ledger's records."""

from __future__ import annotations

from pydantic import Field

from recompress.errors import RecompressError
from recompress.records import ModelRef, Record


class StandsElsewhere(RecompressError):
    """A worker's commit, packages, data, recipe or base are not the run's just now, so it did nothing. That may pass: somebody commits or pulls while work is done."""


class Job(Record):
    """One step of one variant. Whoever does it comes to the same key by its own code and packages, or does nothing."""

    recipe: str
    """The recipe's file, relative to the project where it lies in it."""
    recipe_sha256: str
    recipe_text: str = ""
    """The recipe itself, where no commit holds it: a watch tries a pin that nobody has merged yet."""
    training: int = 1
    variant: str
    number: int
    """The step's place in the variant, from 1."""
    name: str
    """What the run calls it; of what a teacher has to say before the step, ``teacher``."""
    key: str
    models: tuple[ModelRef, ...]
    """The baseline and the variants that may teach."""
    model: ModelRef
    """What the step begins with."""
    runs: dict[str, str]
    """The MLflow runs that it writes to, by name."""
    dataset_sha256: str
    base_sha256: str
    standing: dict[str, str] = Field(default_factory=dict)
    """Commit, constraints and packages of the run."""


class Ended(Record):
    """How a job ended: done or found, failed with an error, not taken, or with its worker gone. Of the last three one says something, or none."""

    job: Job
    did: bool = True
    """False where somebody else had done it meanwhile."""
    seconds: float = 0.0
    error: str = ""
    kind: str = ""
    """The class of the error, of ``recompress.errors`` or any other."""
    elsewhere: str = ""
    """Why the worker took no work: in what it stands otherwise than the run."""
    gone: str = ""
    """How the worker ended, in words."""


def check_standing(ours: dict[str, str], theirs: dict[str, str], who: str) -> None:
    """Raises ``StandsElsewhere`` where a worker stands otherwise than the run that gives the work: what it made would be of other code."""
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name, "") != theirs.get(name, ""):
            here, there = ours.get(name) or "none", theirs.get(name) or "none"
            raise StandsElsewhere(f"worker {who} takes no work: its {name} is {here[:60]}, the run's is {there[:60]}")


def leases_of(key: str) -> tuple[str, str]:
    """What a worker holds: its job, from when its process has come so far, and the step while it is at it."""
    return f"job {key}", f"step {key}"
