"""What is deployed of a project: a deployment for each recipe, one for the watch, one for approvals. ``prefect.yaml`` and ``recompress schedule`` both say this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recompress.errors import InputError
from recompress.settings.file import SettingsFile, place_in
from tasks.tracking.track import EXPERIMENT, experiment_of

POOL = "recompress"
"""The work pool; ``prefect worker start --pool recompress`` runs what is due in it."""
TAG = "recompress"
"""Stands at every deployment and so at every run of one: what the automation looks after, and nothing else of the server's."""
HEARTBEAT_S = 30
"""The least that Prefect takes."""
BEATING = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}}
"""What a worker sets for a run. Nothing of this machine, and no address of a store: these have passwords, and the worker's own environment holds them."""
ENQUEUE = "ENQUEUE"


@dataclass(frozen=True)
class Deployment:
    """One deployment. ``name`` is that of the recipe, behind that of the project where it gives itself one, so that projects can share a server."""

    flow: str
    name: str
    description: str
    parameters: dict[str, str] = field(default_factory=dict)
    job_variables: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    """How many of its runs may be at work at once; one that is due waits (``ENQUEUE``)."""

    @property
    def entrypoint(self) -> str:
        """A module of the installed package, so that the project's folder needs no code."""
        return f"flows.{self.flow}.{self.flow}"

    @property
    def full_name(self) -> str:
        return f"{self.flow}/{self.name}"

    def as_yaml(self) -> dict[str, Any]:
        """An entry of ``prefect.yaml``."""
        entry: dict[str, Any] = {"name": self.name, "entrypoint": self.entrypoint, "description": self.description}
        entry |= {"parameters": dict(self.parameters)} if self.parameters else {}
        entry |= {"tags": [TAG]} if self.job_variables else {}  # what waits for a person for days sends no heartbeats
        entry |= {"work_pool": {"name": POOL} | ({"job_variables": self.job_variables} if self.job_variables else {})}
        return entry | ({"concurrency_limit": {"limit": self.limit, "collision_strategy": ENQUEUE}} if self.limit else {})


def deployment_of(root: Path, recipe: Path) -> Deployment:
    """That of a recipe. Raises ``InputError`` where the recipe gives itself no name."""
    place = place_of(root, recipe)
    values = SettingsFile(recipe).values
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise InputError(f"name is missing ({recipe}:1)")
    return Deployment("scheduled", _named(root, name), f"Keeps what {place} makes current.", {"recipe": place}, BEATING, limit=1)


def place_of(root: Path, recipe: Path) -> str:
    """A recipe's file, relative to the project where it lies in it."""
    return place_in(root, recipe.resolve() if recipe.is_file() else recipe)


def deployment_of_watch(root: Path) -> Deployment:
    return Deployment("watch", _named(root, "watch"), "Looks at what the recipes depend on, and does what watch.yaml says.", {}, BEATING, limit=1)


def deployments_of(root: Path) -> list[Deployment]:
    """All of a project, in the order of the files' names. Raises ``InputError`` for a recipe that cannot be read, and for two of one name."""
    recipes = {path: deployment_of(root, path) for path in sorted((root / "recipes").glob("*.yaml"))}
    first: dict[str, Path] = {}
    for path, deployment in recipes.items():
        if deployment.name in first:
            raise InputError(f"{first[deployment.name]} and {path} have one name, {deployment.name!r}; give one of them another")
        first[deployment.name] = path
    return [*recipes.values(), *_without_a_schedule(root)]


def _without_a_schedule(root: Path) -> Iterator[Deployment]:
    yield deployment_of_watch(root)
    yield Deployment(
        "approve", _named(root, "approve"), "Shows a plan that waits for an approval, asks for it in a form, and records what `recompress approve` does."
    )


def _named(root: Path, name: str) -> str:
    project = experiment_of(root).removeprefix(EXPERIMENT).lstrip("/")
    return f"{project}-{name}" if project else name
