"""What ``watch.yaml`` calls by name: recipes by their files, models and data sets by their places. What is not there is a mistake that nobody would heed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from recompress.errors import InputError, without_passwords
from recompress.settings.file import SettingsFile, place_in, unknown

T = TypeVar("T")


def check_names(root: Path, file: SettingsFile, recipes: Mapping[str, T], follow: Iterable[str]) -> dict[str, T]:
    """The settings of ``recipes`` by their ``place_in``. Raises ``InputError`` for a file that is not there or is named twice, and for a place in ``follow`` that no
    recipe depends on, with the nearest right one."""
    known = sorted((root / "recipes").glob("*.yaml"))
    placed: dict[str, T] = {}
    for name, chosen in recipes.items():
        where, place = file.where(("recipes", name)), place_in(root, Path(name))
        if not (root / name).is_file():
            raise InputError(unknown("recipe", name, [path.relative_to(root).as_posix() for path in known], where))
        if place in placed:
            raise InputError(f"{name!r} is a recipe that has its settings already ({where}); keep one of them")
        placed[place] = chosen
    followed = list(follow)
    if followed:
        places = set(_places(root, [*known, *(root / name for name in recipes)]))
        for name in followed:
            if name not in places:
                raise InputError(unknown("model or data set", name, places, file.where(("follow", name))))
    return placed


def _places(root: Path, recipes: Iterable[Path]) -> Iterator[str]:
    """The models of the recipes, and where data comes from, as far as that can be read; what cannot be is said by whoever runs it."""
    for recipe in recipes:
        values = _read(recipe)
        for section in ("base", "baseline"):
            yield from _text(_at(values, section, "model"))
    described = _at(_read(root / "params.yaml"), "datasets")
    for about in described.values() if isinstance(described, dict) else ():
        yield from _text(_at(about, "hub", "dataset"))
        for source in _text(_at(about, "source")):
            imported = _at(_read((root / source).with_name(f"{Path(source).name}.dvc")), "deps")
            for dependency in imported if isinstance(imported, list) else ():
                yield from map(without_passwords, _text(_at(dependency, "repo", "url")))


def _read(path: Path) -> Any:
    with suppress(InputError):
        return SettingsFile(path).values
    return None


def _at(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _text(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
