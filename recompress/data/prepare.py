"""From raw files to frozen splits: ``train.parquet``, ``dev.parquet``, ``test.parquet`` and ``preparation.json``, which counts what had to be done.

    python -m recompress.data.prepare NAME      as params.yaml says; into prepared/NAME

In this order: broken rows are repaired or left out (``recompress.data.clean``), conflicting labels settled, repeats dropped, splits made that the raw data
lacks, and whatever of train or dev stands in test, or of train in dev, is dropped from train and dev: across slices, because slices are trained together,
and in whatever case and punctuation. Groups stay in one split, where rows name them (``recompress.data.groups``). The test split loses no row to a leak. The same raw bytes give the same prepared bytes.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from recompress.benchmarks import Example
from recompress.data.clean import Tally, clean, likeness, tells_something, without_conflicts, without_likes, without_repeats
from recompress.data.formats.readers import ProblemKind
from recompress.data.groups import group_of, groups_of, whole_groups, with_whole_groups, without_groups
from recompress.data.labels import kinds_of, names_in
from recompress.data.sources import RawPart, SourceSettings, SplitOff, read_raw, read_settings_of
from recompress.data.version import check_version
from recompress.errors import DataRefused, RecompressError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_bytes
from recompress.models.heads import Answer
from recompress.records import Split
from recompress.settings.file import SettingsFile

log = logging.getLogger(__name__)
PROBLEMS: tuple[ProblemKind, ...] = ("malformed_lines", "empty_words", "not_utf8", "byte_order_marks", "windows_line_ends", "not_chosen")
REFUSING: tuple[ProblemKind, ...] = ("malformed_lines", "not_utf8")
"""What refuses the data, unless ``malformed: leave_out`` is set."""
UNKNOWN_LABELS_LIMIT = 0.01
"""More than this share of a slice with labels that ``params.yaml`` does not know is a mistake in ``params.yaml``, not in the data."""

Counts = dict[Split, dict[str, Tally]]
Splits = dict[Split, dict[str, list[Example]]]


def prepare(parts: list[RawPart], settings: SourceSettings) -> tuple[Splits, Counts]:
    """The prepared rows and what was counted on the way, by split and slice.

    Raises ``DataRefused`` for a line that cannot be read (unless ``malformed: leave_out``), and when nothing is left of a slice of a split.
    """
    splits: Splits = {}
    counts: Counts = {}
    for part in parts:
        unreadable = [problem for problem in part.problems if problem.kind in REFUSING]
        if unreadable and settings.malformed == "refuse":
            more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            raise DataRefused(f"{unreadable[0]}{more}; correct the file, or leave such sentences out and count them (malformed: leave_out in params.yaml)")
        tally: Tally = Counter({kind: part.count(kind) for kind in PROBLEMS})
        rows = _clean_part(part, settings, tally)
        splits.setdefault(part.split, {})[part.slice] = rows
        counts.setdefault(part.split, {})[part.slice] = tally
    for missing, how in settings.split_off.items():
        _split_off(splits, counts, missing, how, settings.head.answer)
    _drop_leaks(splits, counts)
    for split, slices in splits.items():
        for name, rows in slices.items():
            counts[split][name]["kept"] = len(rows)
            if not rows:
                raise DataRefused(f"nothing is left of slice {name!r} of {split}: {_told(counts[split][name])}")
    return splits, counts


def _clean_part(part: RawPart, settings: SourceSettings, tally: Tally) -> list[Example]:
    tally["read"] = len(part.examples)
    tally["untidy_labels"] = part.untidy_labels
    known = frozenset(settings.known_labels) if settings.known_labels else None
    running = settings.running_text or settings.head.answer == "text"  # a prompt keeps its lines
    rows = clean(part.examples, known, tally, tagged=settings.tagged, running=running, spans=settings.finds_spans)
    if tally["unknown_labels"] > UNKNOWN_LABELS_LIMIT * len(part.examples):
        strange = sorted(names_in((label for example in part.examples for label in example.labels), settings.head.answer) - (known or frozenset()))
        raise DataRefused(f"{part.split} of {part.slice!r} has labels that params.yaml does not list: {', '.join(map(repr, strange[:5]))}")
    if settings.running_text:
        return rows
    return without_repeats(without_conflicts(rows, tally), tally)


def _split_off(splits: Splits, counts: Counts, split: Split, how: SplitOff, answer: Answer) -> None:
    """Move a share of the training rows into a split that the raw data lacks."""
    if split in splits:
        raise DataRefused(f"split_off.{split} is set in params.yaml, but the raw data has a {split} split of its own")
    splits[split], counts[split] = {}, {}
    decided: dict[str, bool] = {}
    for name, rows in splits.get("train", {}).items():
        taken = _taken(rows, how, decided, answer)
        splits[split][name] = [row for i, row in enumerate(rows) if i in taken]
        splits["train"][name] = [row for i, row in enumerate(rows) if i not in taken]
        counts["train"][name][f"moved_to_{split}"] += len(splits[split][name])
        counts[split][name] = Counter(read=len(splits[split][name]))


def _taken(rows: list[Example], how: SplitOff, decided: dict[str, bool], answer: Answer) -> set[int]:
    if how.take == "tail":
        return with_whole_groups(rows, _tail(rows, how.share))
    kinds = kinds_of(rows, answer, by_type=how.rare > 0)
    counts = Counter(kinds)
    if any(row.group for row in rows):
        for row, kind in zip(rows, kinds, strict=True):
            if counts[kind] < how.rare:
                decided.setdefault(group_of(row), False)
        return whole_groups(rows, how.share, decided, kinds)
    drawn = [i for i, kind in enumerate(kinds) if counts[kind] >= how.rare]
    return {drawn[i] for i in _smallest_digests([rows[i] for i in drawn], how.share, [kinds[i] for i in drawn])}


def _tail(rows: list[Example], share: float) -> set[int]:
    return set(range(len(rows) - math.ceil(share * len(rows)), len(rows)))


def _smallest_digests(rows: list[Example], share: float, kinds: list[tuple[str, ...]]) -> set[int]:
    """The same share of every kind of row: of every label, where a row has one."""
    labelled: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for i, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        labelled.setdefault(kind, []).append((sha256_bytes("\n".join(row.words).encode()), i))
    return {i for group in labelled.values() for _, i in sorted(group)[: math.ceil(share * len(group))]}


def _drop_leaks(splits: Splits, counts: Counts) -> None:
    texts = {split: {likeness(row) for rows in slices.values() for row in rows if tells_something(row)} for split, slices in splits.items()}
    groups = {split: groups_of(slices) for split, slices in splits.items()}
    pairs: tuple[tuple[Split, Split], ...] = (("dev", "test"), ("train", "test"), ("train", "dev"))
    for split, other in pairs:
        for name, rows in splits.get(split, {}).items():
            rows = without_groups(rows, groups.get(other, set()), f"group_in_{other}", counts[split][name])
            splits[split][name] = without_likes(rows, texts.get(other, set()), f"also_in_{other}", counts[split][name])


def write(splits: Splits, counts: Counts, settings: SourceSettings, folder: Path) -> None:
    """Parquet files and ``preparation.json`` into an empty folder."""
    grouped = any(row.group for slices in splits.values() for rows in slices.values() for row in rows)
    for split, slices in splits.items():
        _write_parquet([row for name in sorted(slices) for row in slices[name]], folder / f"{split}.parquet", grouped)
    text = json.dumps(summary(splits, counts, settings), ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "preparation.json").write_bytes(text.encode() + b"\n")


def summary(splits: Splits, counts: Counts, settings: SourceSettings) -> dict[str, Any]:
    """What ``preparation.json`` says. Counts that are nought are left out."""
    every = (label for slices in splits.values() for rows in slices.values() for row in rows for label in row.labels)
    seen = names_in(every, settings.head.answer) if settings.labelled else set(every)
    return {
        "benchmark": settings.benchmark,
        "labels": list(settings.head.outputs or ([one for one in settings.known_labels if one in seen] if settings.known_labels else sorted(seen))),
        "slices": sorted({name for slices in splits.values() for name in slices}),
        "rows": {split: sum(map(len, slices.values())) for split, slices in splits.items()},
        "counts": {split: {name: {k: n for k, n in sorted(tally.items()) if n} for name, tally in slices.items()} for split, slices in counts.items()},
    }


def _write_parquet(rows: list[Example], path: Path, grouped: bool) -> None:
    """One row group layout, one codec, no index and no schema of pandas: the bytes follow from the rows and the version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.list_(pa.string())
    schema = pa.schema([("words", lists), ("labels", lists), ("slice", pa.string())])
    columns = [pa.array([row.words for row in rows], lists), pa.array([row.labels for row in rows], lists), pa.array([row.slice for row in rows], pa.string())]
    if grouped:
        schema, columns = schema.append(pa.field("group", pa.string())), [*columns, pa.array([row.group for row in rows], pa.string())]
    pq.write_table(pa.table(columns, schema=schema), path, version="2.6", compression="zstd", compression_level=9, store_schema=False, row_group_size=1 << 16)


def _told(tally: Tally) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(tally.items()) if count)


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        [name] = arguments
        check_version(SettingsFile(Path("params.yaml")), "prepare")
        settings = read_settings_of(Path(), name)
        splits, counts = prepare(read_raw(Path(settings.source), settings), settings)
        target = Path("prepared") / name
        shutil.rmtree(target, ignore_errors=True)
        with new_directory(target) as folder:
            write(splits, counts, settings, folder)
        log.info("%s: %s", name, ", ".join(f"{split} {sum(map(len, slices.values())):,}" for split, slices in splits.items()))
    except RecompressError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
