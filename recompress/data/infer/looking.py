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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.data.formats.reading import Reading, text_of
from recompress.data.formats.records import value_at
from recompress.data.formats.tables import SIDE_FILES
from recompress.data.infer.columns import infer_columns
from recompress.data.infer.files import SPLIT_WORDS, check_together, data_files, named_by, said_of
from recompress.data.infer.format import infer_format
from recompress.data.infer.sample import sample
from recompress.data.infer.tags import infer_conll
from recompress.data.infer.understood import Understood, settings_of, understand
from recompress.data.prepare import UNKNOWN_LABELS_LIMIT
from recompress.data.questions import QUESTION_ANSWERING
from recompress.data.sources import SourceSettings
from recompress.errors import DataRefused, InputError
from recompress.models.heads import Answer, head_of
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
    if "files" not in dials:
        check_together(files, others, dials.get("rename", {}))
    entry, comments, notes, unlabelled = _inferred(files, dials, alone=path.is_file())
    files = {name: file for name, file in files.items() if name not in unlabelled}
    source = f"raw/{name or _slug(path)}"
    entry = {key: entry[key] for key in ORDER if key in entry} | {"source": source} | dials | _renamed(entry, dials)
    if (
        len(files) == 1
        and "{split}" not in entry["files"]
        and "split" not in entry
        and (said := said_of(next(iter(files)), dials.get("rename"))) not in ("", "train")
    ):
        notes.append(
            f"all rows of {next(iter(files))} are taken for training data, though its name says {said}; give the folder with all splits if that is meant"
        )
    if others:
        notes.append(f"not taken for data: {', '.join(others[:5])}{' …' if len(others) > 5 else ''}")
    understood = understand(files, entry, path)
    entry, drawn = _with_splits(entry, understood.rows, understood.labels, head_of(entry["benchmark"]).answer)
    comments |= {"split_off": "drawn from train by digests of the texts, the same wherever it runs"} if "split_off" in entry else {}
    entry = {key: entry[key] for key in ORDER if key in entry} | {key: value for key, value in entry.items() if key not in ORDER}
    return replace(understood, entry=entry, comments=comments, notes=(*notes, *drawn, *understood.notes, *_warnings(understood)))


def _inferred(files: Mapping[str, Path], dials: Mapping[str, Any], *, alone: bool) -> tuple[dict[str, Any], dict[str, str], list[str], list[str]]:
    """Format, columns and paths; why; what was uncertain; and which files have no labels though others do."""
    data = {name: file for name, file in files.items() if file.name not in SIDE_FILES}
    first, encoding = data[_tells_most(data, dials.get("rename", {}))], dials.get("encoding", "utf-8")
    every = [first, *(file for file in data.values() if file != first)]
    unlabelled: list[str] = []
    entry = infer_format(first, encoding, dials.get("format")) | {key: dials[key] for key in ("encoding", "delimiter", "header") if key in dials}
    comments = {"format": f"{first.name} looks like it"}
    notes: list[str] = []
    if entry["format"] == "lines":
        entry["benchmark"] = "language-modelling"
    elif entry["format"] == "squad":
        entry, comments = entry | {"benchmark": QUESTION_ANSWERING}, comments | {"format": "articles with paragraphs, and questions about them"}
    elif entry["format"] == "conll":
        columns, why = infer_conll("\n\n".join(text_of(Reading(file, strict=False), encoding) for file in every), dict(dials))
        entry, comments = entry | {"benchmark": "token-classification"} | columns, comments | why
    else:
        records, names = sample(first, entry)
        try:
            columns, why, notes = infer_columns(records, names, dials)
            if columns["benchmark"] == "token-classification" and len(every) > 1:  # a file without a B- tells no scheme
                columns, why, notes = infer_columns([row for file in every for row in sample(file, entry)[0]], names, dials)
        except DataRefused as error:
            raise DataRefused(f"{first}: {error}") from None
        entry, comments = entry | columns, comments | why
        if "files" not in dials and (labels := entry.get("label_columns") or [column for column in [entry.get("label")] if column]):
            unlabelled = [name for name, file in data.items() if file != first and _lacks(sample(file, entry)[0], labels)]
            notes += [f"left out, because it has no labels: {name}; a split that is then missing is drawn from train" for name in unlabelled]
            data = {name: file for name, file in data.items() if name not in unlabelled}
    if "files" not in dials:
        entry["files"], rename = named_by(data, dials.get("rename"), alone=alone)
        entry |= {"rename": entry.get("rename", {}) | rename} if rename else {}
    return {key: value for key, value in entry.items() if (key, value) != ("tags", "iob2")}, comments, notes, unlabelled


def _tells_most(names: Iterable[str], rename: Mapping[str, Split]) -> str:
    """The file that says best how all are read: one to train on, rather than one that may have no labels."""
    return min(names, key=lambda name: {"train": 0, "": 1}.get(said_of(name, rename), 2))


def _lacks(records: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> bool:
    """Whether no record has a label: nothing, or the -1 of hubs and contests, stands in its place. Lists that are empty say that none holds."""
    found = (value_at(record, label) for record in records for label in labels)
    return bool(records) and all(value is None or (not isinstance(value, list | dict) and str(value).strip() in ("", "-1", "-1.0")) for value in found)


def _renamed(entry: Mapping[str, Any], dials: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of names of splits, and what was found of the others."""
    return {"rename": entry.get("rename", {}) | dials["rename"]} if "rename" in dials else {}


def _with_splits(entry: dict[str, Any], rows: Mapping[Split, int], labels: Mapping[str, int], answer: Answer) -> tuple[dict[str, Any], list[str]]:
    """The entry with shares of train in place of the splits that are missing. Labels that occur too seldom to be in three splits are left out where they are few, and
    stay in train where they are not."""
    given = entry.get("split_off", {})
    if "train" not in rows:
        return entry, [f"there are no rows to train on, only {', '.join(rows)}; rename: or split: says which rows are which split"]
    shares: tuple[tuple[Split, float], ...] = (("test", 0.2), ("dev", 0.1))
    missing = {split: {"share": share} for split, share in shares if split not in rows and split not in given}
    if not missing:
        return entry, []
    seldom = [label for label, count in labels.items() if count < SELDOM] if answer in ("label", "labels", "tags") else []
    lost = sum(labels[label] for label in seldom)
    stay = {"rare": SELDOM} if answer == "tags" or 0 < lost < sum(labels.values()) / 2 else {}
    kept = {split: given.get(split) or missing[split] | stay for split, _ in shares if split in given or split in missing}
    missing = {split: given.get(split) or missing[split] for split in kept}
    if not seldom or "labels" in entry:
        return entry | {"split_off": kept}, []
    listed = ", ".join(f"{label!r} ({labels[label]})" for label in seldom[:5])
    if answer != "label" or lost > UNKNOWN_LABELS_LIMIT * sum(labels.values()) or len(labels) - len(seldom) < 2:
        why = f"labels that occur fewer than {SELDOM} times cannot be in every split: {listed}"
        told = "so they stay in train, and nothing judges them; join or leave out such rows for that" if stay else "join or leave out such rows"
        return entry | {"split_off": kept}, [f"{why}; {told}"]
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
