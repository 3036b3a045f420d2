"""Which files a data set is made of, as ``params.yaml`` says, and everything that stands in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, field_validator, model_serializer

from recompress.benchmarks import Example
from recompress.data.characters import tidy
from recompress.data.formats.readers import Problem, ProblemKind, Row, read_file
from recompress.data.formats.tables import SIDE_FILES, saved_files
from recompress.data.formats.tag_schemes import labels_in_iob2
from recompress.data.ignored import ignored_in
from recompress.data.labels import settled
from recompress.data.layout import Layout, Name
from recompress.errors import DataRefused, InputError
from recompress.records import Split
from recompress.settings.base import Settings, Share, as_before
from recompress.settings.file import SettingsFile, unknown

SPLITS: tuple[Split, ...] = get_args(Split)


class HubSource(Settings):
    """A data set on a hub, at one commit."""

    dataset: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*$", json_schema_extra={"in_words": "a hub id, owner/name"})
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", json_schema_extra={"in_words": "a full commit, 40 hex digits, because names and branches move"})


class SplitOff(Settings):
    """How a split is made that the raw data does not have."""

    share: Share
    """Of the rows of the training split, label by label."""
    take: Literal["hash", "tail"] = "hash"
    """``hash``: those whose text has the smallest digests, the same wherever and in whatever order the rows come. ``tail``: the last, for running text."""
    rare: int = Field(default=0, ge=0)
    """Rows of a label (sentences with a type of entity) that fewer than so many rows have stay in train, which otherwise might never see it. With it, sentences are
    drawn by the rarest type in them, each type by its own share."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), ("rare",))


LATER = (
    "text_pair",
    "label_columns",
    "separator",
    "encoding",
    "slice",
    "split",
    "where",
    "names",
    "tags",
    "word_column",
    "tag_column",
    "comment",
    "delimiter",
    "header",
    "ignore",
    "hub",
    "question",
    "answer_start",
)
"""Dials that came after data sets had been checked: the checks of these are found again."""


class SourceSettings(Layout):
    """One entry of ``datasets`` in ``params.yaml``: which files, and (``Layout``) how rows stand in them."""

    source: str
    """Folder of the raw files, relative to the project."""
    files: str
    """Path below ``source``, with ``{slice}`` and ``{split}`` where these stand in it, and ``*`` for what may be anything within a name: ``{split}-*.parquet``.
    Without ``{split}`` everything is training data."""
    ignore: tuple[str, ...] = ()
    """Files below ``source`` that are no data, in the same way: ``README.md``, ``*.pdf``, ``notes/*``."""
    hub: HubSource | None = None
    """Where a hub has these files: ``recompress data fetch NAME`` brings them from there, and so does every run that does not find them here."""
    rename: dict[str, Split] = {}
    """What a split is called in the path or in the column ``split``, where that is not train, dev or test."""
    labels: tuple[Name, ...] | None = None
    """All labels there are; a row with another is left out. Without it, whatever occurs is a label."""
    split_off: dict[Literal["dev", "test"], SplitOff] = {}
    """Splits that are drawn from the training rows because the raw data lacks them. Groups stay together."""
    malformed: Literal["refuse", "leave_out"] = "refuse"
    """What to do with lines that cannot be read: refuse the data by file and line, or leave out the sentences that they stand in and count them."""
    running_text: bool = False
    """The lines follow on each other, so that repeated lines stay."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: Any) -> dict[str, Any]:
        return as_before(self, write(self), LATER)

    @field_validator("files")
    @classmethod
    def _inside(cls, files: str) -> str:
        if files.startswith("/") or ".." in Path(files).parts:
            raise ValueError("should be a path below the source folder")
        return files

    @property
    def known_labels(self) -> tuple[str, ...] | None:
        """``labels`` as prepared rows carry them: tags in IOB2, with the B- of every I-."""
        return labels_in_iob2(self.labels, self.tags) if self.labels is not None and self.tagged else self.labels

    @property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(\{slice\}|\{split\})", self.files)
        shortest = "?" if "*" in self.files else ""
        named = {"{slice}": rf"(?P<slice>[A-Za-z0-9_-]+{shortest})", "{split}": rf"(?P<split>[A-Za-z0-9_-]+{shortest})"}
        return re.compile("".join(named.get(part, _with_stars(part)) for part in parts))

    def ignores(self, relative: str) -> bool:
        beside = (*self.ignore, *(f"{above}{name}" for name in SIDE_FILES for above in ("", "*/", "*/*/"))) if self.format == "datasets" else self.ignore
        return any(re.fullmatch(_with_stars(pattern), relative) for pattern in beside)


def _with_stars(pattern: str) -> str:
    """A regular expression for a path in which ``*`` is anything within a name."""
    return "[^/]*".join(map(re.escape, pattern.split("*")))


@dataclass
class RawPart:
    """One slice of one split, as it stands in the raw files."""

    split: Split
    slice: str
    examples: list[Example] = field(default_factory=list)
    places: list[tuple[Path, int]] = field(default_factory=list)
    """File and line of each example."""
    problems: list[Problem] = field(default_factory=list)
    untidy_labels: int = 0
    """Labels with white space around them, a hidden character in them, or not composed; they are read as what is meant."""

    def count(self, kind: ProblemKind) -> int:
        return sum(problem.kind == kind for problem in self.problems)


def read_settings_of(root: Path, name: str) -> SourceSettings:
    """The entry of data set ``name`` in ``params.yaml``. Raises ``InputError``."""
    file = SettingsFile(root / "params.yaml")
    known = names(file)
    if name not in known:
        raise InputError(unknown("data set", name, known, file.where(("datasets",))))
    return file.read_as(SourceSettings, ("datasets", name))


def names(file: SettingsFile) -> list[str]:
    """The data sets that ``params.yaml`` describes."""
    entries = file.values.get("datasets") if isinstance(file.values, dict) else None
    if not isinstance(entries, dict):
        raise InputError(f"no data set is described under 'datasets' ({file.path}:1)")
    return list(entries)


class RawFile(NamedTuple):
    """One raw file, what it is called below the source folder, and what its path says."""

    path: Path
    name: str
    split: Split
    slice: str


def raw_files(folder: Path, settings: SourceSettings) -> list[tuple[Path, Split, str]]:
    """Path, split and slice of every raw file, sorted. Raises ``DataRefused`` for a missing or empty folder, and for a file that should not be there."""
    return [(file.path, file.split, file.slice) for file in _files_in(folder, settings)]


def _files_in(folder: Path, settings: SourceSettings) -> list[RawFile]:
    if not folder.is_dir():
        raise DataRefused(f"{folder} is missing; `recompress data` says how to get it")
    ignored = ignored_in(folder)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(path for path in folder.rglob("*") if path.is_file() and not ignored(path))}
    found = named_files(saved_files(files) if settings.format == "datasets" else files, settings)
    if not found:
        raise DataRefused(f"{folder} is empty; expected files like {settings.files}")
    return found


def named_files(files: Mapping[str, Path], settings: SourceSettings) -> list[RawFile]:
    """Files by their path below the source folder, with what that path says. Raises ``DataRefused`` for one that should not be there."""
    found = []
    for relative, path in files.items():
        match = settings.pattern.fullmatch(relative)
        if match is None and settings.ignores(relative):
            continue
        named = match.groupdict() if match else {}
        given = named.get("split") or "train"
        split = settings.rename.get(given, given)
        if match is None or split not in SPLITS:
            raise DataRefused(f"{path} is not one of the files that make up the data: {settings.files} (params.yaml)")
        found.append(RawFile(path, relative, split, named.get("slice") or "all"))
    return found


def read_raw(folder: Path, settings: SourceSettings, *, slices: tuple[str, ...] | None = None, strict: bool = False) -> list[RawPart]:
    """Every raw example, by split and slice. Rows may name their slice and their split themselves. Raises ``DataRefused``."""
    return read_files(_files_in(folder, settings), settings, str(folder), slices=slices, strict=strict)


def read_files(files: Sequence[RawFile], settings: SourceSettings, where: str, *, slices: tuple[str, ...] | None = None, strict: bool = False) -> list[RawPart]:
    """The same of files that were chosen before; ``where`` names them in messages."""
    parts: dict[tuple[Split, str], RawPart] = {}
    known: set[str] = set()
    rows_name_slices = settings.format == "jsonl" or settings.slice is not None
    for path, name, split, file_slice in files:
        known |= set() if rows_name_slices else {file_slice}
        if slices is not None and not rows_name_slices and file_slice not in slices:
            continue
        reading = read_file(path, settings, strict=strict)
        places = [(_split_of(row, split, settings, path), row.slice or file_slice) for row in reading.rows]
        for place, row in zip(places, reading.rows, strict=True):
            part = parts.setdefault(place, RawPart(*place))
            group = f"{name}:{row.group}" if row.group and settings.format == "conll" else row.group
            labels = row.labels if settings.head.answer in ("span", "text") else tuple(map(tidy, row.labels))  # texts are taken spaces and all
            part.untidy_labels += sum(before != after for before, after in zip(row.labels, labels, strict=True)) if labels != row.labels else 0
            labels = settled(labels, settings.head.answer) if labels != row.labels else labels
            part.examples.append(Example(row.words, labels, part.slice, group))
            part.places.append((path, row.line))
        parts[places[0]].problems.extend(reading.problems)
    known |= {part.slice for part in parts.values()}
    for wanted in slices or ():
        if wanted not in known:
            raise DataRefused(unknown("slice", wanted, known, where))
    chosen = [part for part in parts.values() if slices is None or part.slice in slices]
    return sorted(chosen, key=lambda part: (SPLITS.index(part.split), part.slice))


def _split_of(row: Row, of_file: Split, settings: SourceSettings, path: Path) -> Split:
    if settings.split is None:
        return of_file
    split = settings.rename.get(row.split, row.split)
    if split not in SPLITS:
        raise DataRefused(f"the row is of split {row.split!r}, which is not train, dev or test; rename: says which it is ({path}:{row.line})")
    return split
