"""Which folder is a project, and which one a command means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from recompress.errors import InputError
from recompress.settings.file import SettingsFile, place_in

if TYPE_CHECKING:
    from recompress.recipe import Plan

OURS = "recompress.data"
"""Stands in what the stages of a project run."""


def is_project(folder: Path) -> bool:
    """Whether ``dvc.yaml`` is here and is no other tool's: it has a stage of ours, or none yet."""
    try:
        document = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, yaml.YAMLError):
        return True  # what is wrong with it is told by whoever reads it
    stages = document.get("stages") if isinstance(document, dict) else None
    return not stages or OURS in str(stages)


def find_root(start: Path) -> Path:
    """The nearest folder upwards that is a project; else the one project in a folder directly below; else ``start``."""
    above = next((folder for folder in (start, *start.parents) if is_project(folder)), None)
    below = projects_below(start) if above is None else []
    return above or (below[0] if len(below) == 1 else start)


def projects_below(folder: Path) -> list[Path]:
    """The projects directly below a folder, sorted."""
    return sorted(path.parent for path in folder.glob("*/dvc.yaml") if is_project(path.parent))


def check_project(folder: Path) -> None:
    """Raises ``InputError`` with the ways out."""
    if is_project(folder):
        return
    lacks = "its dvc.yaml has no stage of Recompress" if (folder / "dvc.yaml").is_file() else "it has no dvc.yaml"
    below = [path.name for path in projects_below(folder)]
    others = f" (here are: {', '.join(below)})" if below else ""
    raise InputError(
        f"{folder} is not a Recompress project: {lacks}; go to the project's folder or give --root{others}, or begin one: recompress init --data FILE --base MODEL"
    )


def check_name(root: Path, plan: Plan) -> None:
    """Raises ``InputError`` where another recipe of the project, in ``recipes`` or beside this one, has the same name: what is recorded of the one would be believed of
    the other. The copy that a watch makes of a recipe, with another pin, is the same recipe."""
    home, here = root.resolve(), plan.path.resolve()
    if here.is_relative_to(home / ".recompress"):
        return
    for path in sorted({*(home / "recipes").glob("*.yaml"), *here.parent.glob("*.yaml")}):
        if path.resolve() != here and _may_name(path, plan.recipe.name) and _name_in(path) == plan.recipe.name:
            first, second = sorted(place_in(root, place) for place in (here, path))
            raise InputError(f"{first} and {second} have one name, {plan.recipe.name!r}; give one of them another")


def _may_name(recipe: Path, name: str) -> bool:
    """Whether a name can stand in a file at all: as it is, or written with escapes. Most recipes need not be read to know that they have another."""
    try:
        text = recipe.read_bytes()
    except OSError:
        return False
    return name.encode() in text or b"\\" in text


def _name_in(recipe: Path) -> object:
    """The name that a recipe gives itself, as far as it can be read; ``None`` for what is no recipe."""
    try:
        values = SettingsFile(recipe).values
    except InputError:
        return None
    return values.get("name") if isinstance(values, dict) and "benchmark" in values else None


def only_recipe(folder: Path) -> Path:
    """The one recipe of a project, relative to it. Raises ``InputError`` where there is none, or a choice."""
    names = sorted(path.name for path in (folder / "recipes").glob("*.yaml"))
    if not names:
        raise InputError(f"{folder} has no recipes; write one, or let one be written for your data: recompress data add FILE --base MODEL")
    if len(names) != 1:
        raise InputError(f"{folder} has {len(names)} recipes: {', '.join(names)}; say which: recompress run recipes/{names[0]}")
    return Path("recipes") / names[0]
