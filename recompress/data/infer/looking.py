"""Look at a file or folder that somebody has, and say how it would be read: format, columns, tags, splits, labels, scripts, lengths.

understood = look_at(Path("tickets.csv"))
understood.benchmark            # "text-classification"
understood.labels               # {"billing": 812, "login": 455, …}
understood.entry                # what `datasets.NAME` of params.yaml would say, as plain values; SourceSettings.model_validate takes it
understood.files                # the files to copy below the entry's source, each with its path there

Nothing is written, and nothing is guessed twice: what is counted here was read by the readers that will read the data, with the settings that ``entry`` holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.data.formats.reading import Reading, text_of
from recompress.data.formats.tables import SIDE_FILES
from recompress.data.infer.columns import infer_columns
from recompress.data.infer.files import SPLIT_WORDS, data_files, named_by
from recompress.data.infer.format import infer_format
from recompress.data.infer.sample import sample
from recompress.data.infer.tags import infer_conll
from recompress.data.infer.understood import Understood, settings_of, understand
from recompress.data.prepare import UNKNOWN_LABELS_LIMIT
from recompress.data.questions import QUESTION_ANSWERING
from recompress.data.sources import SourceSettings
from recompress.errors import DataRefused, InputError
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
SELDOM, FEW = 10, 1000
"""Fewer rows of a label than can be in three splits; fewer rows than tell much."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def look_at(path: Path, *, name: str = "", **dials: Any) -> Understood:
    """Look at a file or a folder. ``name`` is what the data set will be called (the file's name when empty); ``dials`` are keys of ``SourceSettings`` that are
    known already (``format="csv"``, ``text="body"``) and are then not inferred.

    Raises ``DataRefused``: nothing is there, no format fits, or no column does, with what was tried and the dial that says it; ``InputError`` for a dial that
    does not exist.
    """
    for dial in dials:
        if dial not in SourceSettings.model_fields:
            raise InputError(unknown("dial", dial, SourceSettings.model_fields, "look_at"))
    settings_of({"benchmark": "text-classification", "format": "csv", "source": "raw", "files": "a.csv"} | dials)
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


def _slug(path: Path) -> str:
    """A name for a data set, made of that of a file or folder: small letters, digits, _ . -"""
    called = path.stem if path.is_file() and path.stem.lower() not in SPLIT_WORDS else (path.resolve().parent if path.is_file() else path.resolve()).name
    name = re.sub(r"[^a-z0-9_.-]+", "-", called.lower()).strip("-._")
    return name[:80] or "data"
