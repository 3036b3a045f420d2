"""``watch.yaml``: how often to look, how long a change has to rest, and what may be done about it by itself. Every key may be left out, and so may the file."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recompress.settings.base import Settings
from recompress.settings.file import read_settings

FILE = "watch.yaml"
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


def is_duration(text: str) -> str:
    """The text, where it is a duration. Raises ``ValueError``."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError("is a number with s, m, h or d behind it, like 30m")
    return text


Duration = Annotated[str, AfterValidator(is_duration)]
Mode = Literal["propose", "auto"]


def seconds_of(duration: str) -> float:
    """``30m`` in seconds."""
    match = _DURATION.fullmatch(duration.strip())
    assert match is not None  # it was checked when it was read
    return timedelta(**{UNITS[match[2]]: float(match[1])}).total_seconds()


class RecipeWatch(Settings):
    """What is different for one recipe."""

    mode: Mode | None = None


class Forge(Settings):
    """Where a pull request is made besides the branch. The token is read from RECOMPRESS_FORGE_TOKEN."""

    api: str = "https://api.github.com"
    """The address of an API that answers to ``POST /repos/OWNER/NAME/pulls`` (GitHub, Gitea, Forgejo)."""
    repository: str
    """``owner/name``."""
    base: str = "main"
    """The branch that the request is to be merged into."""
    remote: str = "origin"
    """The remote that the branch is pushed to."""


class WatchSettings(Settings):
    """How a project is watched."""

    every: Duration = "15m"
    """How long a loop waits between two looks, a tenth more or less."""
    settle: Duration = "30m"
    """How long a source has to stand still before anything is done about it."""
    lease: Duration = "60s"
    """How long a watcher that was killed keeps others from taking its run up."""
    mode: Mode = "propose"
    """``propose``: a branch with the new pin, for a person to merge. ``auto``: the run promotes through the gate, and the pin moves when it did."""
    recipes: dict[str, RecipeWatch] = {}
    """By the recipe's file, relative to the project."""
    follow: dict[str, str] = {}
    """The branch that is looked at, by hub id; ``main`` where nothing is said."""
    forge: Forge | None = None
    budget: Annotated[float, Field(gt=0, le=1)] = 0.8
    """People are told when so large a share of a policy's loss budget is spent."""

    def mode_of(self, recipe: str) -> Mode:
        """What may be done by itself for a recipe."""
        chosen = self.recipes.get(recipe)
        return chosen.mode if chosen is not None and chosen.mode is not None else self.mode


def read_watch_settings(root: Path) -> WatchSettings:
    """The project's ``watch.yaml``, or what stands for it. Raises ``InputError``."""
    path = root / FILE
    return read_settings(path, WatchSettings) if path.is_file() else WatchSettings()
