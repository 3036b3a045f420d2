"""``recompress init``: a project appears, with data and a base that were looked at, or empty, to be filled by ``recompress data add``.

Everything is made in a folder beside the place where it belongs, data prepared and recipe read back included. Only then are the files moved there one by one, what
makes it a project last. Killed before that, nothing of a project is there; killed while they move, the next ``recompress init`` in that folder moves the rest.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.scaffold import texts
from tasks.scaffold.cutting import Filling
from tasks.scaffold.filling import Say, Wanted, fill, look, slug
from tasks.scaffold.place import Place, brought, place_for
from tasks.scaffold.shown import lines_of
from tasks.scaffold.staging import finish_if_cut, move, staging

DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"


@dataclass(frozen=True)
class Begun:
    """A project that was begun, and what was understood on the way."""

    folder: Path
    name: str
    """Of its data set; empty where it has none yet."""
    inferred: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    """What it shares with the repository around it."""


def begin(folder: Path | None, here: Path, wanted: Wanted | None, say: Say = lambda line: None) -> Begun:
    """Make a project. ``here`` is where relative paths begin; without ``wanted`` it has no data yet.

    Raises ``InputError`` for data, a base or a folder that will not do, ``DataRefused`` for data that cannot be read or prepared, and ``StorageError`` for a disk that is full or read-only.
    Nothing that is there is changed in any case.
    """
    name = wanted.called(here) if wanted else ""
    finish_if_cut(here / folder if folder is not None else here)
    place = place_for(here / folder if folder is not None else None, here, name)
    finish_if_cut(place.folder)
    filling = look(wanted, name, place.folder, here, say) if wanted else None
    with staging(place.folder) as staged:
        describe = write_settings(staged, place, filling)
        filling, rows = fill(staged, filling, describe, say) if filling else (None, {})
        move(staged, place.folder, (".dvc", *brought(name)))
    return Begun(place.folder, name, tuple(lines_of(filling.data)) if filling else (), rows, shares_with(place))


def write_settings(staged: Path, place: Place, filling: Filling | None) -> Callable[[Filling], None]:
    """What says how data is read and prepared, and DVC's own folder where there is none around. Gives what writes ``params.yaml`` again, for data that is cut otherwise."""
    for fixed in texts.FIXED:
        (staged / fixed).write_text(texts.fixed(fixed), encoding="utf-8")
    if place.is_own_repository:
        (staged / ".dvc").mkdir()
        (staged / ".dvc" / "config").write_text(DVC_CONFIG + "    no_scm = true\n" * (place.git is None), encoding="utf-8")
        (staged / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    called = filling.name if filling else slug(place.folder.name or "project")
    project = f"{called[:50]}-{secrets.token_hex(3)}"

    def describe(filling: Filling | None) -> None:
        entry = texts.entry_lines(filling.name, filling.data, filling.entry(), filling.origin, today()) if filling else []
        (staged / "params.yaml").write_text(texts.params(project, entry), encoding="utf-8")

    describe(filling)
    return describe


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def shares_with(place: Place) -> str:
    """One line: which repositories it stands in, and what it shares with them."""
    git = f"in the git repository {place.git}" if place.git else "in no git repository"
    dvc = f"shares cache and remotes of the DVC repository {place.dvc}" if place.dvc else "has a DVC repository of its own"
    return f"{git}; {dvc}; nothing that was there was changed"
