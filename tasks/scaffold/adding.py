"""``recompress data add``: one more data set in a project that is there, with its entry in ``params.yaml``, its pins, and a recipe where a base is named.

All of it is made aside, as ``recompress init`` does, and moved at the end: new files first, then ``params.yaml`` and ``dvc.lock``, which speak of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recompress.errors import InputError
from recompress.settings.file import SettingsFile
from tasks.scaffold import texts
from tasks.scaffold.begin import today
from tasks.scaffold.cutting import Filling
from tasks.scaffold.entries import with_entry
from tasks.scaffold.filling import Say, Wanted, fill, look
from tasks.scaffold.place import of_data
from tasks.scaffold.shown import lines_of
from tasks.scaffold.staging import finish_if_cut, move, staging

SHARED = ("params.yaml", "dvc.lock")
"""What all data sets of a project stand in."""


@dataclass(frozen=True)
class Added:
    """A data set that was added, and what was understood on the way."""

    name: str
    inferred: tuple[str, ...]
    rows: Mapping[str, int] = field(default_factory=dict)
    recipe: str = ""
    """The recipe that was written for it; empty where no base was named."""


def add(root: Path, here: Path, wanted: Wanted, say: Say = lambda line: None) -> Added:
    """Add a data set to the project in ``root``; paths of ``wanted`` begin ``here``.

    Raises ``InputError`` for a name that is taken and for data or a base that will not do, ``DataRefused`` for data that cannot be read or prepared, and ``StorageError``
    for a disk that is full or read-only. Nothing of the project is changed then.
    """
    finish_if_cut(root)
    name = wanted.called(here)
    check_free(root, name, with_recipe=wanted.base is not None)
    before = (root / "params.yaml").read_bytes()
    filling = look(wanted, name, root, here, say)
    filling.entry()  # too few rows are refused before anything of them is in the cache
    with staging(root) as staged:
        for file in ("dvc.yaml", "dvc.lock", ".dvcignore"):
            if (root / file).is_file():
                shutil.copyfile(root / file, staged / file)

        def describe(filling: Filling) -> None:
            entry = texts.entry_lines(name, filling.data, filling.entry(), filling.origin, today())
            (staged / "params.yaml").write_text(with_entry(root / "params.yaml", name, entry), encoding="utf-8")

        filling, rows = fill(staged, filling, describe, say)
        if (root / "params.yaml").read_bytes() != before:
            raise InputError(f"{root / 'params.yaml'} was changed meanwhile; nothing was added, run the same command again")
        move(staged, root, (*of_data(name), *SHARED), replacing=SHARED)
    return Added(name, tuple(lines_of(filling.data)), rows, f"recipes/{name}.yaml" if filling.base else "")


def check_free(root: Path, name: str, *, with_recipe: bool) -> None:
    """Raises ``InputError`` for a name that the project has already."""
    described = SettingsFile(root / "params.yaml").values
    datasets = described.get("datasets") if isinstance(described, dict) else None
    taken: Sequence[str] = [f"datasets.{name} in params.yaml"] if isinstance(datasets, dict) and name in datasets else []
    files = [path for path in of_data(name) if with_recipe or not path.startswith(("policies/", "recipes/"))]
    taken = [*taken, *(path for path in files if (root / path).exists() or (root / path).is_symlink())]
    if taken:
        raise InputError(f"the project has {', '.join(taken)} already, and nothing of it is overwritten; give the data another name with --name")
