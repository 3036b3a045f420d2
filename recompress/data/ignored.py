"""Files that DVC does not count: what ``.dvcignore`` names, in the way of ``.gitignore``, from the project's top down to the folder itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

NAME = ".dvcignore"


def ignored_in(folder: Path) -> Callable[[Path], bool]:
    """Tells of a path below ``folder`` whether DVC leaves it out. The project's top is the nearest folder upwards that holds ``.dvc``."""
    folder = folder.absolute()
    above = (folder, *folder.parents)
    top = next((place for place in above if (place / ".dvc").is_dir()), folder)
    files = [place / NAME for place in reversed(above) if place.is_relative_to(top) and (place / NAME).is_file()]
    lines = {file.parent: _patterns(file) for file in (*files, *sorted(folder.rglob(f"*/{NAME}")))}
    if not any(lines.values()):
        return lambda _path: False
    from pathspec import GitIgnoreSpec

    specs = [(place, GitIgnoreSpec.from_lines(patterns)) for place, patterns in lines.items()]

    def ignored(path: Path) -> bool:
        answer = False
        for place, spec in specs:  # the nearest file that speaks of it decides
            if path.absolute().is_relative_to(place):
                verdict = spec.check_file(path.absolute().relative_to(place).as_posix()).include
                answer = answer if verdict is None else verdict
        return answer

    return ignored


def _patterns(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip() and not line.startswith("#")]
