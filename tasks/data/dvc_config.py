"""What DVC is set to in a project: by the project, by the user and by the system, as DVC itself reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from recompress.errors import DataRefused


class DvcConfig(NamedTuple):
    """Its cache and the names of its remotes."""

    cache: Path
    remotes: tuple[str, ...]


def read_config(root: Path) -> DvcConfig:
    """The settings that hold for a project. Raises ``DataRefused`` for settings that DVC would refuse."""
    from dvc.config import Config, ConfigError

    home = (dvc_home(root) or root) / ".dvc"
    with _settled():
        try:
            config = Config(str(home))
        except ConfigError as error:
            raise DataRefused(
                f"DVC's settings cannot be read: {' '.join(str(error).split())[:200]}; mend {home / 'config'} or your own (dvc config --list)"
            ) from None
    return DvcConfig(Path(config["cache"].get("dir") or home / "cache").resolve(), tuple(config["remote"]))


def dvc_home(folder: Path) -> Path | None:
    """The DVC repository that a folder lies in, as DVC itself finds it: the nearest folder upwards with ``.dvc``."""
    return next((above for above in (folder, *folder.absolute().parents) if (above / ".dvc").is_dir()), None)


@contextmanager
def _settled() -> Iterator[None]:
    """A user without a home folder has no settings of their own."""
    try:
        yield
    except RuntimeError as error:
        raise DataRefused(f"DVC's settings cannot be read: {error}; set HOME") from None


def quoted(path: Path) -> str:
    """A path as a value of DVC's settings, where ``#`` begins a comment and a comma a list. Raises ``DataRefused`` for one with both kinds of quotes."""
    text = str(path)
    if '"' in text and "'" in text:
        raise DataRefused(f"{path} has both kinds of quotes in its name, which DVC's settings cannot hold; move the project")
    return f"'{text}'" if '"' in text else f'"{text}"'


def is_kept(path: Path, root: Path) -> bool:
    """Whether a link leads into DVC's cache: DVC put it there, where ``cache.type`` asks for links."""
    return path.resolve().is_relative_to(read_config(root).cache)
