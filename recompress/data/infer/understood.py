"""What a file or folder is when it is read so: rows, labels, scripts and lengths as the readers count them, and what could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recompress.data.formats.reading import HARMLESS, Row
from recompress.data.infer.sample import sample
from recompress.data.layout import WITHOUT_COLUMNS, Layout
from recompress.data.prepare import REFUSING
from recompress.data.shape import labels_in, lengths, numbers_in, scripts
from recompress.data.sources import RawPart, SourceSettings, named_files, read_files
from recompress.errors import InputError
from recompress.gate.groups import FEWEST
from recompress.records import Split

REFUSED = "lines that cannot be read refuse the data; malformed: leave_out leaves them out and counts them"
MOST_OF_TEST = 0.4
"""The greatest share of the data that is drawn as test split."""
FIRST = 2
"""Rows of a part that are shown."""


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


def understand(files: Mapping[str, Path], entry: Mapping[str, Any], path: Path) -> Understood:
    """What files are when they are read as an entry of ``params.yaml`` says. Raises ``DataRefused`` and ``InputError`` as reading does."""
    settings = settings_of(entry)
    parts = read_files(named_files(files, settings), settings, str(path))
    problems = [problem for part in parts for problem in part.problems if problem.kind not in HARMLESS]
    more = [f"and {len(problems) - 10:,} more"] if len(problems) > 10 else []
    return Understood(
        path=path,
        benchmark=settings.benchmark,
        entry=dict(entry),
        comments={},
        files=dict(files),
        columns=_columns(next(iter(files.values())), settings),
        rows=dict(_counted({part.split: len(part.examples)} for part in parts)),
        labels=dict(_counted(labels_in(part.examples, settings.head.answer) for part in parts).most_common()),
        slices=dict(_counted({part.slice: len(part.examples)} for part in parts)),
        scripts=scripts([example for part in parts for example in part.examples]),
        lengths=lengths([example for part in parts for example in part.examples], tagged=settings.tagged),
        problems=(*map(str, problems[:10]), *more),
        notes=(*_few_groups(settings, parts), *_of_numbers(settings, parts), *((REFUSED,) if any(problem.kind in REFUSING for problem in problems) else ())),
        first=tuple(row for part in parts[:6] for row in _first(part)),
    )


def _few_groups(settings: SourceSettings, parts: list[RawPart]) -> tuple[str, ...]:
    """Questions are in groups although nobody named any; where these are too few for a bound, a person has to know before anything is trained."""
    if not settings.finds_spans:
        return ()
    examples = [example for part in parts for example in part.examples]
    groups, texts = {example.group for example in examples}, {example.words[1] for example in examples}
    if len(groups) * MOST_OF_TEST >= FEWEST:
        return ()
    ways = (
        f"; group: context would draw its {len(texts):,} texts instead, of which those of one article may then be in several splits"
        if len(texts) > len(groups)
        else ""
    )
    return (f"the questions belong to {len(groups):,} articles, and a bound needs {FEWEST} in the test split alone{ways}",)


def _of_numbers(settings: SourceSettings, parts: Sequence[RawPart]) -> tuple[str, ...]:
    return (numbers_in([example for part in parts for example in part.examples]),) if settings.head.answer == "number" else ()


def settings_of(entry: Mapping[str, Any]) -> SourceSettings:
    try:
        return SourceSettings.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise InputError(f"{'.'.join(map(str, first['loc']))} {what}, got {first['input']!r}") from None


def _columns(file: Path, settings: SourceSettings) -> tuple[str, ...]:
    if settings.format in WITHOUT_COLUMNS:
        return ()
    records, _ = sample(file, settings.model_dump(include=set(Layout.model_fields)))
    return tuple(dict.fromkeys(key for record in records[:100] for key in record))


def _first(part: RawPart) -> list[Row]:
    return [
        Row(example.words, example.labels, line, example.slice, example.group, part.split)
        for example, (_, line) in zip(part.examples[:FIRST], part.places[:FIRST], strict=True)
    ]


def _counted(counts: Iterable[Mapping[Any, int]]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for count in counts:
        total.update(count)
    return total
