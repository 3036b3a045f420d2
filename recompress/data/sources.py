"""Which files a data set is made of, as ``params.yaml`` says, and everything that stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import field_validator

from recompress.benchmarks import Example
from recompress.data.characters import tidy
from recompress.data.ignored import ignored_in
from recompress.data.readers import Format, Problem, ProblemKind, read_rows
from recompress.errors import DataRefused, InputError
from recompress.records import Split
from recompress.settings.base import Settings, Share
from recompress.settings.file import SettingsFile, unknown

SPLITS: tuple[Split, ...] = get_args(Split)


class SplitOff(Settings):
    """How a split is made that the raw data does not have."""

    share: Share
    """Of the rows of the training split, label by label."""
    take: Literal["hash", "tail"] = "hash"
    """``hash``: those whose text has the smallest digests, the same wherever and in whatever order the rows come. ``tail``: the last, for running text."""


class SourceSettings(Settings):
    """One entry of ``datasets`` in ``params.yaml``."""

    benchmark: str
    format: Format
    source: str
    """Folder of the raw files, relative to the project."""
    files: str
    """Path below ``source``, with ``{slice}`` and ``{split}`` where these stand in it. Without ``{split}`` everything is training data."""
    rename: dict[str, Split] = {}
    """What a split is called in the path, where that is not train, dev or test."""
    labels: tuple[str, ...] | None = None
    """All labels there are; a row with another is left out. Without it, whatever occurs is a label."""
    text: str = "text"
    label: str = "label"
    group: str | None = None
    """What rows belong to (a document, an author, a conversation): the column (TSV) or key (JSON lines) that names it, or (CoNLL) the word that begins the line
    before each document, e.g. ``-DOCSTART-``. A group stays in one split, and has one name in all files. Without it every row stands for itself."""
    split_off: dict[Literal["dev", "test"], SplitOff] = {}
    malformed: Literal["refuse", "leave_out"] = "refuse"
    """What to do with lines that cannot be read: refuse the data by file and line, or leave out the sentences that they stand in and count them."""
    running_text: bool = False
    """The lines follow on each other, so that repeated lines stay."""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: str) -> str:
        if files.startswith("/") or ".." in Path(files).parts:
            raise ValueError("should be a path below the source folder")
        return files

    @field_validator("group")
    @classmethod
    def _where_groups_are_named(cls, group: str | None, info: Any) -> str | None:
        if group is not None and (not group.strip() or info.data.get("format") == "lines"):
            raise ValueError("names a column, a key or a mark; plain text (format: lines) has none of these")
        return group

    @property
    def tagged(self) -> bool:
        """Whether each word has a label of its own."""
        return self.benchmark == "token-classification"

    @property
    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(\{slice\}|\{split\})", self.files)
        named = {"{slice}": r"(?P<slice>[A-Za-z0-9_-]+)", "{split}": r"(?P<split>[A-Za-z0-9_-]+)"}
        return re.compile("".join(named.get(part, re.escape(part)) for part in parts))


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


def raw_files(folder: Path, settings: SourceSettings) -> list[tuple[Path, Split, str]]:
    """Path, split and slice of every raw file, sorted. Raises ``DataRefused`` for a missing or empty folder, and for a file that should not be there."""
    if not folder.is_dir():
        raise DataRefused(f"{folder} is missing; `recompress data` says how to get it")
    found: list[tuple[Path, Split, str]] = []
    ignored = ignored_in(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not ignored(path)):
        relative = path.relative_to(folder).as_posix()
        match = settings.pattern.fullmatch(relative)
        named = match.groupdict() if match else {}
        given = named.get("split") or "train"
        split = settings.rename.get(given, given)
        if match is None or split not in SPLITS:
            raise DataRefused(f"{path} is not one of the files that make up the data: {settings.files} (params.yaml)")
        found.append((path, split, named.get("slice") or "all"))
    if not found:
        raise DataRefused(f"{folder} is empty; expected files like {settings.files}")
    return found


def read_raw(folder: Path, settings: SourceSettings, *, slices: tuple[str, ...] | None = None, strict: bool = False) -> list[RawPart]:
    """Every raw example, by split and slice. Rows may name their slice themselves (JSON lines). Raises ``DataRefused``."""
    parts: dict[tuple[Split, str], RawPart] = {}
    known: set[str] = set()
    for path, split, file_slice in raw_files(folder, settings):
        known |= {file_slice} if settings.format != "jsonl" else set()
        if slices is not None and settings.format != "jsonl" and file_slice not in slices:
            continue
        reading = read_rows(path, settings.format, strict=strict, text=settings.text, label=settings.label, group=settings.group)
        for row in reading.rows:
            part = parts.setdefault((split, row.slice or file_slice), RawPart(split, row.slice or file_slice))
            group = f"{path.relative_to(folder).as_posix()}:{row.group}" if row.group and settings.format == "conll" else row.group
            labels = tuple(map(tidy, row.labels))
            part.untidy_labels += sum(before != after for before, after in zip(row.labels, labels, strict=True)) if labels != row.labels else 0
            part.examples.append(Example(row.words, labels, part.slice, group))
            part.places.append((path, row.line))
        parts[split, reading.rows[0].slice or file_slice].problems.extend(reading.problems)
    known |= {part.slice for part in parts.values()}
    for name in slices or ():
        if name not in known:
            raise DataRefused(unknown("slice", name, known, str(folder)))
    chosen = [part for part in parts.values() if slices is None or part.slice in slices]
    return sorted(chosen, key=lambda part: (SPLITS.index(part.split), part.slice))
