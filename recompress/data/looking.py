"""Look at a file or folder that somebody has, and say how it would be read: format, columns, tags, splits, labels, scripts, lengths.

understood = look_at(Path("tickets.csv"))
understood.benchmark            # "text-classification"
understood.labels               # {"billing": 812, "login": 455, …}
understood.entry                # what `datasets.NAME` of params.yaml would say, as plain values; SourceSettings.model_validate takes it
understood.files                # the files to copy below the entry's source, each with its path there

Nothing is written, and nothing is guessed twice: what is counted here was read by the readers that will read the data, with the settings that ``entry`` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.data.reading import Row
from recompress.errors import DataRefused
from recompress.records import Split


@dataclass(frozen=True)
class Understood:
    """How a file or folder was understood."""

    path: Path
    benchmark: str
    """Which kind of benchmark fits."""
    entry: dict[str, Any]
    """The entry of ``params.yaml`` that reads it so; ``source`` is ``raw/NAME``. Only dials that are not at their default."""
    comments: dict[str, str]
    """For each key of ``entry`` why it has its value, in a few words, fit to stand behind it as a comment."""
    files: dict[str, Path]
    """Path below ``source``: the file that belongs there."""
    columns: tuple[str, ...]
    """Names of all columns or keys, in their order; empty for plain text and CoNLL."""
    rows: dict[Split, int]
    """How many rows each split has in the raw data; what ``entry['split_off']`` names will be drawn from train."""
    labels: dict[str, int]
    """How often each label occurs, most frequent first; for words in tags, entities by type."""
    slices: dict[str, int]
    """Rows of each slice."""
    scripts: dict[str, float]
    """Share of the letters in each script (Latin, Cyrillic, Ethiopic …), greatest first."""
    lengths: dict[str, int]
    """Words of a row: ``median``, ``p90``, ``p99``, ``longest``."""
    problems: tuple[str, ...]
    """What could not be read, with file and line; at most ten, and how many more."""
    notes: tuple[str, ...]
    """What was uncertain and how it was decided, a line each, with the dial that decides otherwise."""
    first: tuple[Row, ...]
    """The first rows as they were read."""


def look_at(path: Path, *, name: str = "", **dials: Any) -> Understood:
    """Look at a file or a folder. ``name`` is what the data set will be called (the file's name when empty); ``dials`` are keys of ``SourceSettings`` that are
    known already (``format="csv"``, ``text="body"``) and are then not inferred.

    Raises ``DataRefused``: nothing is there, no format fits, or no column does, with what was tried and the dial that says it; ``InputError`` for a dial that
    does not exist.
    """
    raise DataRefused(f"{path}: looking at data comes with the next commit ({name} {Mapping})")
