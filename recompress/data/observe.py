"""What can be seen in a data set, as tables with a row for each example: how many of its words are not NFC, whether it was there before, and so on.

Nothing is judged here. ``recompress.data.checks`` says what is allowed, and the defects have the same names there, here and in ``preparation.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.benchmarks import Example
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.data.characters import has_broken, has_hidden, is_nfc
from recompress.data.clean import Key, likeness, tells_something
from recompress.data.formats.bio import continues_nothing
from recompress.data.groups import groups_of
from recompress.data.questions import KINDS
from recompress.data.sources import RawPart, SourceSettings
from recompress.data.splits import preparation, read_split
from recompress.models.heads import Answer
from recompress.records import Split

if TYPE_CHECKING:
    import pandas as pd

Labels = dict[Key, Key]
COUNTED = (
    *("not_nfc", "hidden_characters", "broken_characters", "empty_words", "missing_labels", "unknown_labels", "invalid_bio", "repeats", "conflicts"),
    *("in_train", "in_train_otherwise", "in_train_nearly", "in_train_elsewhere", "in_test", "group_elsewhere", "malformed_lines"),
)
ROW_COLUMNS = ("split", "slice", *COUNTED)
NO_ENTITIES = 1000.0
"""The ratio that is reported when a split has no entity at all."""


def read_prepared(folder: Path, slices: Sequence[str]) -> list[RawPart]:
    """The prepared splits in the form in which raw files are read. Raises ``DataRefused``."""
    parts: dict[tuple[Split, str], RawPart] = {}
    splits: tuple[Split, ...] = ("train", "dev", "test")
    for split in splits:
        if split in preparation(folder)["rows"]:
            for example in read_split(folder, split, slices):
                parts.setdefault((split, example.slice), RawPart(split, example.slice)).examples.append(example)
    return list(parts.values())


def observe_rows(parts: Sequence[RawPart], settings: SourceSettings) -> pd.DataFrame:
    """A table with a row for each example and the columns ``ROW_COLUMNS``. What belongs to no row stands in the first of its split and slice."""
    import pandas as pd

    homes: dict[Split, dict[str, Labels]] = {"train": {}, "dev": {}, "test": {}}
    for part in parts:
        homes[part.split][part.slice] = {example.words: example.labels for example in part.examples if tells_something(example)}
    trained_on = Counter(words for texts in homes["train"].values() for words in texts)
    likes = {likeness(example) for part in parts if part.split == "train" for example in part.examples if tells_something(example)}
    known = frozenset(
        (
            *(settings.known_labels or (label for part in parts if part.split == "train" for example in part.examples for label in example.labels)),
            NO_LABEL_HOLDS,
        )
    )
    groups = {part.split: groups_of({p.slice: p.examples for p in parts if p.split == part.split}) for part in parts}
    columns: dict[str, list[str] | list[int]] = {name: [] for name in ROW_COLUMNS}
    for part in parts:
        seen: dict[str, list[str] | list[int]] = {
            "split": [str(part.split)] * len(part.examples),
            "slice": [part.slice] * len(part.examples),
            **_from_characters(part.examples),
            **_from_labels(part, settings, known),
            **_from_repeats(part, settings.running_text),
            **_from_other_splits(part, homes, trained_on, likes),
            "group_elsewhere": _from_groups(part, groups),
            "malformed_lines": _in_first_row(part, part.count("malformed_lines") + part.count("not_utf8")),
        }
        for name, values in seen.items():
            columns[name] += values  # type: ignore[operator]
    return pd.DataFrame(columns)


def observe_sizes(parts: Sequence[RawPart], expected: dict[tuple[str, str], int] | None = None) -> pd.DataFrame:
    """A table with a row for each slice of a split: ``rows``, and ``rows_lost``, how far that is from what is expected."""
    import pandas as pd

    sizes = {(str(part.split), part.slice): len(part.examples) for part in parts}
    wanted = sizes if expected is None else expected
    return pd.DataFrame(
        [
            {"split": split, "slice": name, "rows": sizes.get((split, name), 0), "rows_lost": abs(sizes.get((split, name), 0) - wanted.get((split, name), 0))}
            for split, name in sorted(sizes.keys() | wanted.keys())
        ],
        columns=["split", "slice", "rows", "rows_lost"],
    )


def _from_characters(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Counted in words; most texts have none of these, and the whole text tells so at once."""
    columns: dict[str, list[int]] = {"not_nfc": [], "hidden_characters": [], "broken_characters": []}
    for example in examples:
        text = " ".join(example.words)
        words = () if text.isascii() and text.isprintable() else text.split(" ")
        columns["not_nfc"].append(0 if not words or is_nfc(text) else sum(not is_nfc(word) for word in words))
        columns["hidden_characters"].append(sum(map(has_hidden, words)) if words and has_hidden(text) else 0)
        columns["broken_characters"].append(sum(map(has_broken, words)) if words and has_broken(text) else 0)
    return columns


def _from_labels(part: RawPart, settings: SourceSettings, known: frozenset[str]) -> dict[str, list[int]]:
    empty = [
        0 if example.words and all(map(str.strip, example.words)) else max(1, sum(not word.strip() for word in example.words)) for example in part.examples
    ]
    empty[0] += part.count("empty_words")
    return {
        "empty_words": empty,
        "missing_labels": [_missing(example, settings.head.answer) for example in part.examples],
        "unknown_labels": [
            0 if settings.head.answer in ("number", "span", "text") or known.issuperset(example.labels) else sum(label not in known for label in example.labels)
            for example in part.examples
        ],
        "invalid_bio": [len(continues_nothing(example.labels)) if settings.tagged else 0 for example in part.examples],
    }


def _missing(example: Example, answer: Answer) -> int:
    """Labels that a row lacks, or has too many."""
    if answer in ("labels", "span", "text"):
        return int(not example.labels)
    wanted = {"tags": len(example.words), "nothing": 0}.get(answer, 1)
    return abs(len(example.labels) - wanted)


def _from_repeats(part: RawPart, running_text: bool) -> dict[str, list[int]]:
    """``repeats``: the text stood in this split before. ``conflicts``: it has several labellings; said once for each text, where it stands first."""
    first: dict[Key, int] = {}
    labellings: dict[Key, set[Key]] = {}
    repeats = [0] * len(part.examples)
    for i, example in enumerate(part.examples):
        repeats[i] = int(first.setdefault(example.words, i) != i and not running_text)
        labellings.setdefault(example.words, set()).add(example.labels)
    conflicts = [0] * len(part.examples)
    for words, seen in labellings.items():
        conflicts[first[words]] = int(len(seen) > 1)
    return {"repeats": repeats, "conflicts": conflicts}


def _from_other_splits(part: RawPart, homes: dict[Split, dict[str, Labels]], trained_on: Counter[Key], likes: set[str]) -> dict[str, list[int]]:
    """Whether the text stands in another split of its slice, there with another label (the last it is given), in the train split of another slice, or
    in any train split with another case or punctuation. ``trained_on`` says in how many slices a text is trained on."""
    train, test = homes["train"].get(part.slice, {}), homes["test"].get(part.slice, {})
    is_train, is_dev = part.split == "train", part.split == "dev"
    texts = [example.words for example in part.examples]
    return {
        "in_train": [int(words in train and not is_train) for words in texts],
        "in_train_otherwise": [int(not is_train and train.get(example.words, example.labels) != example.labels) for example in part.examples],
        "in_train_nearly": [int(not is_train and not trained_on[example.words] and likeness(example) in likes) for example in part.examples],
        "in_test": [int(is_dev and words in test) for words in texts],
        "in_train_elsewhere": [int(not is_train and trained_on[words] > (words in train)) for words in texts],
    }


def _from_groups(part: RawPart, groups: dict[Split, set[str]]) -> list[int]:
    """Whether the row's group stands in a split that should know nothing of it: of dev and test in train, of dev in test."""
    others: dict[Split, tuple[Split, ...]] = {"train": (), "dev": ("train", "test"), "test": ("train",)}
    strange = set().union(*(groups.get(other, set()) for other in others[part.split]))
    return [int(example.group in strange) for example in part.examples]


def _in_first_row(part: RawPart, count: int) -> list[int]:
    return [count] + [0] * (len(part.examples) - 1)


def observe_balance(parts: Iterable[RawPart], settings: SourceSettings) -> pd.DataFrame:
    """A table with a row for each slice that compares its splits: ``entity_density`` (the greatest number of entities a sentence in a split, divided by the
    smallest), ``label_balance`` (the greatest difference of one label's share between two splits; of numbers that of the share up to one), ``labels_train_lacks``. Slices of one split are left out.
    """
    import pandas as pd

    by_slice: dict[str, list[RawPart]] = {}
    for part in parts:
        by_slice.setdefault(part.slice, []).append(part)
    compared = {name: splits for name, splits in by_slice.items() if len(splits) > 1 and settings.labelled}
    rows = [{"split": "all", "slice": name, **_compare(splits, settings.head.answer)} for name, splits in compared.items()]
    return pd.DataFrame(rows, columns=["split", "slice", "entity_density", "label_balance", "labels_train_lacks"])


def _compare(splits: Sequence[RawPart], answer: Answer) -> dict[str, float]:
    if answer in ("number", "text"):
        return {"entity_density": 1.0, "label_balance": _farthest_apart(splits) if answer == "number" else 0.0, "labels_train_lacks": 0}
    counts = {part.split: _label_counts(part, answer) for part in splits}
    density = [counts[part.split].total() / len(part.examples) for part in splits] if answer == "tags" else [1.0]
    sizes = {part.split: len(part.examples) if answer == "labels" else counts[part.split].total() for part in splits}
    shares = [{label: count / sizes[split] for label, count in of_split.items()} for split, of_split in counts.items()]
    labels = {label for share in shares for label in share}
    spread = [max(share.get(label, 0.0) for share in shares) - min(share.get(label, 0.0) for share in shares) for label in labels]
    return {
        "entity_density": max(density) / min(density) if min(density) else NO_ENTITIES,
        "label_balance": max(spread, default=0.0),
        "labels_train_lacks": len(labels - set(counts.get("train", ()))),
    }


def _farthest_apart(splits: Sequence[RawPart]) -> float:
    """The greatest difference, over two splits and all numbers, between the shares of rows with that number or a smaller one (Kolmogorov and Smirnov)."""
    import numpy as np

    numbers = [np.sort([float(example.labels[0]) for example in part.examples]) for part in splits]
    every = np.unique(np.concatenate(numbers))
    below = np.array([np.searchsorted(of_split, every, side="right") / len(of_split) for of_split in numbers])
    return float((below.max(axis=0) - below.min(axis=0)).max())


def _label_counts(part: RawPart, answer: Answer) -> Counter[str]:
    """Entities by type, texts by label, or questions by whether they have an answer."""
    if answer == "span":
        return Counter(KINDS[any(example.labels)] for example in part.examples)
    counts = Counter(label for label in chain.from_iterable(example.labels for example in part.examples) if label != NO_LABEL_HOLDS)
    return Counter({label[2:]: count for label, count in counts.items() if label[:2] == "B-"}) if answer == "tags" else counts
