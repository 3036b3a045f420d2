"""Which file of a data set is which split and which slice, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from recompress.errors import InputError
from recompress.records import Split

CALLED: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "devel": "dev",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "eval": "dev",
    "test": "test",
    "testing": "test",
}
"""What people call the three splits."""
NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are named: ``files`` and ``rename`` as ``params.yaml`` says them, and what they then mean."""

    files: str
    rename: dict[str, Split] = field(default_factory=dict)
    splits: tuple[Split, ...] = ("train",)
    slices: tuple[str, ...] = ()


def layout_of(paths: Sequence[str]) -> Layout:
    """The layout of files below one folder, by their paths relative to it. Raises ``InputError`` where no one pattern fits all of them, with the nearest that fits some."""
    if len(paths) == 1:
        return Layout(paths[0])
    named = [_named(path) for path in paths]
    if all(split for _, split, _ in named) and len({pattern for pattern, _, _ in named}) == 1:
        words = {split for _, split, _ in named}
        slices = sorted({slice_ for _, _, slice_ in named if slice_})
        splits = tuple(split for split in ("train", "dev", "test") if split in {CALLED[word.lower()] for word in words})
        _refuse_two_names(words)
        return Layout(named[0][0], {word: CALLED[word.lower()] for word in sorted(words) if word not in ("train", "dev", "test")}, splits, tuple(slices))
    suffixes = {PurePosixPath(path).suffix for path in paths}
    if len(suffixes) == 1 and not any(split for _, split, _ in named) and all(NAME.fullmatch(PurePosixPath(path).stem) and "/" not in path for path in paths):
        return Layout("{slice}" + suffixes.pop(), slices=tuple(sorted(PurePosixPath(path).stem for path in paths)))
    odd = next((path for path, (_, split, _) in zip(paths, named, strict=True) if not split), paths[0])
    raise InputError(
        f"the files are not named alike ({odd!r} beside {next(path for path in paths if path != odd)!r}): give one file, files called train, dev and test "
        "(dev and test may be missing), one such folder for each slice (en/train.csv), or one file for each slice (en.csv, de.csv)"
    )


def _named(path: str) -> tuple[str, str, str]:
    """The pattern that a path follows, what it calls its split, and its slice; both empty where it names none."""
    place = PurePosixPath(path)
    words = [match for match in NAME.finditer(place.stem) if match[0].lower() in CALLED] or [
        match for match in re.finditer(r"[A-Za-z]+", place.stem) if match[0].lower() in CALLED
    ]
    if not words:
        return path, "", ""
    word = words[-1]
    stem = f"{place.stem[: word.start()]}{{split}}{place.stem[word.end() :]}"
    above = place.parent.parts
    pattern = "/".join(["{slice}"] * len(above[-1:]) + [stem + place.suffix])
    return ("/".join((*above[:-1], pattern)), word[0], above[-1] if above else "")


def _refuse_two_names(words: set[str]) -> None:
    """Raises ``InputError`` where two kinds of files would be one split."""
    for word in sorted(words):
        other = next((other for other in sorted(words) if other != word and CALLED[other.lower()] == CALLED[word.lower()]), None)
        if other is not None:
            raise InputError(f"files called {word!r} and files called {other!r} would both be the split {CALLED[word.lower()]!r}; leave one of them out")
