"""Look at a file or folder that somebody has, and say how it would be read: format, columns, tags, splits, labels, scripts, lengths.

understood = look_at(Path("tickets.csv"))
understood.benchmark            # "text-classification"
understood.labels               # {"billing": 812, "login": 455, …}
understood.entry                # what `datasets.NAME` of params.yaml would say, as plain values; SourceSettings.model_validate takes it
understood.files                # the files to copy below the entry's source, each with its path there

Nothing is written, and nothing is guessed twice: what is counted here was read by the readers that will read the data, with the settings that ``entry`` holds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recompress.data.infer_columns import infer_columns, sample
from recompress.data.infer_files import SPLIT_WORDS, data_files, named_by
from recompress.data.infer_format import infer_format
from recompress.data.infer_tags import infer_conll
from recompress.data.layout import WITHOUT_COLUMNS, Layout
from recompress.data.prepare import REFUSING, UNKNOWN_LABELS_LIMIT
from recompress.data.questions import QUESTION_ANSWERING
from recompress.data.reading import HARMLESS, Reading, Row, text_of
from recompress.data.shape import labels_in, lengths, numbers_in, scripts
from recompress.data.sources import RawPart, SourceSettings, named_files, read_files
from recompress.data.tables import SIDE_FILES
from recompress.errors import DataRefused, InputError
from recompress.gate.groups import FEWEST
from recompress.models.heads import head_of
from recompress.records import Split
from recompress.settings.file import unknown

ORDER = (
    *(
        "benchmark",
        "format",
        "source",
        "files",
        "rename",
        "ignore",
        "encoding",
        "delimiter",
        "header",
        "text",
        "text_pair",
        "label",
        "label_columns",
        "separator",
        "names",
        "tags",
        "question",
        "answer_start",
    ),
    *("word_column", "tag_column", "comment", "group", "slice", "split", "where", "labels", "split_off", "malformed", "running_text"),
)
"""In which a person reads an entry."""
REFUSED = "lines that cannot be read refuse the data; malformed: leave_out leaves them out and counts them"
MOST_OF_TEST = 0.4
"""The greatest share of the data that is drawn as test split."""
FIRST, SELDOM, FEW = 2, 10, 1000
"""Rows of a part that are shown; fewer rows of a label than can be in three splits; fewer rows than tell much."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


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
    for dial in dials:
        if dial not in SourceSettings.model_fields:
            raise InputError(unknown("dial", dial, SourceSettings.model_fields, "look_at"))
    _settings({"benchmark": "text-classification", "format": "csv", "source": "raw", "files": "a.csv"} | dials)
    path = Path(path)
    files, others = data_files(path)
    entry, comments, notes = _inferred(files, dials)
    source = f"raw/{name or _slug(path)}"
    entry = {key: entry[key] for key in ORDER if key in entry} | {"source": source} | dials
    if others:
        notes.append(f"not taken for data: {', '.join(others[:5])}{' …' if len(others) > 5 else ''}")
    understood = understand(files, entry, path)
    entry, drawn = _with_splits(entry, understood.rows, understood.labels if head_of(entry["benchmark"]).answer == "label" else {})
    comments |= {"split_off": "drawn from train by digests of the texts, the same wherever it runs"} if "split_off" in entry else {}
    entry = {key: entry[key] for key in ORDER if key in entry} | {key: value for key, value in entry.items() if key not in ORDER}
    return replace(understood, entry=entry, comments=comments, notes=(*notes, *drawn, *understood.notes, *_warnings(understood)))


def understand(files: Mapping[str, Path], entry: Mapping[str, Any], path: Path) -> Understood:
    """What files are when they are read as an entry of ``params.yaml`` says. Raises ``DataRefused`` and ``InputError`` as reading does."""
    settings = _settings(entry)
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


def _settings(entry: Mapping[str, Any]) -> SourceSettings:
    try:
        return SourceSettings.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise InputError(f"{'.'.join(map(str, first['loc']))} {what}, got {first['input']!r}") from None


def _inferred(files: Mapping[str, Path], dials: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Format, columns and paths; why; and what was uncertain."""
    data = {name: file for name, file in files.items() if file.name not in SIDE_FILES}
    first, encoding = next(iter(data.values())), dials.get("encoding", "utf-8")
    entry = infer_format(first, encoding, dials.get("format")) | {key: dials[key] for key in ("encoding", "delimiter", "header") if key in dials}
    comments = {"format": f"{first.name} looks like it"}
    notes: list[str] = []
    if entry["format"] == "lines":
        entry["benchmark"] = "language-modelling"
    elif entry["format"] == "squad":
        entry, comments = entry | {"benchmark": QUESTION_ANSWERING}, comments | {"format": "articles with paragraphs, and questions about them"}
    elif entry["format"] == "conll":
        columns, why = infer_conll(text_of(Reading(first, strict=False), encoding), dict(dials))
        entry, comments = entry | {"benchmark": "token-classification"} | columns, comments | why
    else:
        records, names = sample(first, entry)
        try:
            columns, why, notes = infer_columns(records, names, dials)
        except DataRefused as error:
            raise DataRefused(f"{first}: {error}") from None
        entry, comments = entry | columns, comments | why
    if "files" not in dials:
        entry["files"], rename = named_by(data)
        entry |= {"rename": entry.get("rename", {}) | rename} if rename else {}
    return {key: value for key, value in entry.items() if (key, value) != ("tags", "iob2")}, comments, notes


def _with_splits(entry: dict[str, Any], rows: Mapping[Split, int], labels: Mapping[str, int]) -> tuple[dict[str, Any], list[str]]:
    """The entry with shares of train in place of the splits that are missing; of labels that occur too seldom to be in three splits, none is kept."""
    if "split_off" in entry:
        return entry, []
    if "train" not in rows:
        return entry, [f"there are no rows to train on, only {', '.join(rows)}; rename: or split: says which rows are which split"]
    shares: tuple[tuple[Split, float], ...] = (("test", 0.2), ("dev", 0.1))
    missing = {split: {"share": share} for split, share in shares if split not in rows}
    if not missing:
        return entry, []
    seldom = [label for label, count in labels.items() if count < SELDOM]
    lost = sum(labels[label] for label in seldom)
    if not seldom or "labels" in entry:
        return entry | {"split_off": missing}, []
    listed = ", ".join(f"{label!r} ({labels[label]})" for label in seldom[:5])
    if lost > UNKNOWN_LABELS_LIMIT * sum(labels.values()) or len(labels) - len(seldom) < 2:
        return entry | {"split_off": missing}, [f"labels that occur fewer than {SELDOM} times cannot be in every split: {listed}; join or leave out such rows"]
    often = sorted(label for label in labels if label not in seldom)
    return entry | {"split_off": missing, "labels": often}, [
        f"left out, because fewer than {SELDOM} rows cannot be in every split: {listed}; labels: lists the others"
    ]


def _warnings(understood: Understood) -> list[str]:
    notes = []
    numbers = [label for label in understood.labels if _NUMBER.fullmatch(label)]
    if head_of(understood.benchmark).answer == "label" and len(numbers) == len(understood.labels) > 20:
        notes.append(
            f"the labels are {len(numbers):,} different numbers; as classes none of them is nearer to another; benchmark: text-regression learns them as numbers"
        )
    if (total := sum(understood.rows.values())) < FEW:
        notes.append(f"{total:,} rows are few: the gate can rule out only large losses with a test split of that")
    return notes


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


def _slug(path: Path) -> str:
    """A name for a data set, made of that of a file or folder: small letters, digits, _ . -"""
    called = path.stem if path.is_file() and path.stem.lower() not in SPLIT_WORDS else (path.resolve().parent if path.is_file() else path.resolve()).name
    name = re.sub(r"[^a-z0-9_.-]+", "-", called.lower()).strip("-._")
    return name[:80] or "data"
