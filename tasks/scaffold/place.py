"""Where a new project may stand: a folder of its own, or one where nothing has the name of anything that a project brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recompress.errors import InputError
from recompress.integrity.atomic_directory import refuse_existing
from recompress.settings.file import SettingsFile
from tasks.data.dvc_config import dvc_home
from tasks.running.home import is_project

MADE = ("prepared", "mlflow", "ledger", "keys", ".prefect", ".recompress", "reports", "evidence")
"""Folders that a project makes for itself later; one that is here already is somebody else's."""


@dataclass(frozen=True)
class Place:
    """The folder of a new project, and what it stands in."""

    folder: Path
    git: Path | None
    """The git repository around it."""
    dvc: Path | None
    """The DVC repository around it, or in it, whose cache and remotes it shares; ``None`` where it gets one of its own."""

    @property
    def is_own_repository(self) -> bool:
        return self.dvc is None


def place_for(folder: Path | None, here: Path, name: str = "") -> Place:
    """The folder that was asked for; or ``here``, or, where something that a project brings is here already, the sub-folder ``name`` of it. A project without
    data has no ``name`` yet, and gets no sub-folder.

    Raises ``InputError`` for a project that is there already, for what would clash in a folder that was asked for, by name, and for a file in its place.
    """
    chosen = (folder if folder is not None else here).absolute()
    if folder is None and name and clashes(chosen, name) and not is_project(chosen):
        chosen = chosen / name
    if chosen.exists() and not chosen.is_dir():
        raise InputError(f"{chosen} is a file; name a folder for the project")
    if not chosen.exists():
        refuse_existing(chosen)
    if is_project(chosen):
        SettingsFile(chosen / "dvc.yaml")  # one that cannot be read is told by its line
        raise InputError(
            f"{chosen} is a Recompress project already, and nothing in it was touched; more data goes into it with: recompress data add FILE; "
            "or name another folder"
        )
    if clash := clashes(chosen, name):
        raise InputError(
            f"{', '.join(clash)} {'is' if len(clash) == 1 else 'are'} in {chosen} already, and nothing there is overwritten; "
            f"give the project a folder of its own: recompress init {(chosen / (name or 'compressed')).as_posix()} …"
        )
    return Place(chosen, nearest_with(chosen, ".git"), dvc_home(chosen))


def brought(name: str) -> tuple[str, ...]:
    """What a project brings, by its path; what makes it a project comes last."""
    return (".gitignore", ".dvcignore", *of_data(name), "params.yaml", "dvc.lock", "dvc.yaml")


def of_data(name: str) -> tuple[str, ...]:
    """What of it belongs to a data set; nothing where a project begins without one."""
    return (f"raw/{name}", f"raw/{name}.dvc", f"prepared/{name}", f"policies/{name}.yaml", f"recipes/{name}.yaml") if name else ()


def clashes(folder: Path, name: str) -> list[str]:
    """What of it is there already."""
    return sorted({path for path in (*brought(name), *MADE) if (folder / path).exists() or (folder / path).is_symlink()})


def nearest_with(folder: Path, entry: str) -> Path | None:
    """The nearest folder upwards that holds ``entry``."""
    return next((above for above in (folder, *folder.parents) if (above / entry).exists()), None)
