"""``watch.yaml``: how often to look, how long a change has to rest, and what may be done about it by itself. Every key may be left out, and so may the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from recompress.settings.base import Settings
from recompress.settings.file import SettingsFile
from recompress.watch.names import check_names

FILE = "watch.yaml"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHORTEST_S, LONGEST_D = 1, 366
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


def has_form(text: str) -> bool:
    """Whether it is written as a duration, however long."""
    return _DURATION.fullmatch(text.strip()) is not None


def is_duration(text: str) -> str:
    """The text, where it is a duration. Raises ``ValueError``."""
    if not has_form(text):
        raise ValueError("is a number with s, m, h or d behind it, like 30m")
    if seconds_of(text) > LONGEST_D * 86_400:
        raise ValueError(f"is at most {LONGEST_D}d")
    return text


def is_some_time(text: str) -> str:
    """The text, where it is a duration of a second at least. Raises ``ValueError``."""
    if seconds_of(is_duration(text)) < SHORTEST_S:
        raise ValueError(f"is at least {SHORTEST_S}s")
    return text


Duration = Annotated[str, AfterValidator(is_duration)]
SomeTime = Annotated[str, AfterValidator(is_some_time)]
Mode = Literal["propose", "auto"]


def seconds_of(duration: str) -> float:
    """``30m`` in seconds."""
    match = _DURATION.fullmatch(duration.strip())
    assert match is not None  # it was checked when it was read
    return UNITS[match[2]] * float(match[1])


class RecipeWatch(Settings):
    """What is different for one recipe."""

    mode: Mode | None = None


def is_address(text: str) -> str:
    """The text, where it is an address of HTTP. Raises ``ValueError``."""
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", text):
            return text
    except ValueError:  # a port that is none
        pass
    raise ValueError("is an address like https://git.example.org/api/v1")


class Forge(Settings):
    """Where a pull request is made besides the branch. The token is read from RECOMPRESS_FORGE_TOKEN."""

    api: Annotated[str, AfterValidator(is_address)] = "https://api.github.com"
    """The address of an API that answers to ``POST /repos/OWNER/NAME/pulls`` (GitHub, Gitea, Forgejo)."""
    repository: str
    """``owner/name``."""
    base: str = "main"
    """The branch that the request is to be merged into."""
    remote: str = "origin"
    """The remote that the branch is pushed to."""


class WatchSettings(Settings):
    """How a project is watched."""

    every: SomeTime = "15m"
    """How long a loop waits between two looks, a tenth more or less."""
    settle: Duration = "30m"
    """How long a source has to stand still, since a watch first saw it so, before anything is done about it."""
    lease: SomeTime = "60s"
    """How long a watcher that was killed keeps others from taking its run up."""
    mode: Mode = "propose"
    """``propose``: a branch with the new pin, for a person to merge. ``auto``: the run promotes through the gate, and the pin moves when it did."""
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = 1
    """How many variants a run compresses at the same time; ``auto``: as many as there are cores for."""
    pool: str = ""
    """The Prefect work pool whose workers do that, on this machine or on others; processes of this machine where it is empty."""
    recipes: dict[str, RecipeWatch] = {}
    """By the recipe's file, relative to the project."""
    follow: dict[str, str] = {}
    """The branch that is looked at, by hub id; ``main`` where nothing is said."""
    forge: Forge | None = None
    budget: Annotated[float, Field(gt=0, le=1)] = 0.8
    """People are told when so large a share of a policy's loss budget is spent."""

    @model_validator(mode="after")
    def _whose_cores(self) -> WatchSettings:
        if self.workers == "auto" and self.pool:
            raise ValueError("workers: auto counts the cores of this machine, and a pool may have others; write how many steps it may have at a time")
        return self

    def mode_of(self, recipe: str) -> Mode:
        """What may be done by itself for a recipe, by its ``place_in``."""
        chosen = self.recipes.get(recipe)
        return chosen.mode if chosen is not None and chosen.mode is not None else self.mode


def read_watch_settings(root: Path) -> WatchSettings:
    """The project's ``watch.yaml``, or what stands for it, with recipes by their ``place_in``. Raises ``InputError``, also for recipes and places that are not there."""
    path = root / FILE
    if not path.is_file() or _says_nothing(path):
        return WatchSettings()
    file = SettingsFile(path)
    settings = file.read_as(WatchSettings)
    return settings.model_copy(update={"recipes": check_names(root, file, settings.recipes, settings.follow)})


def _says_nothing(path: Path) -> bool:
    """Whether there is nothing in a file but comments. One that cannot be read is no such file."""
    try:
        return all(line.partition("#")[0].strip() in ("", "---", "...") for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError):
        return False
