"""Made-up rows that hold what formats trip over, and the writers of tools that people use. Nothing here imports the package, so that ``files/make.py`` can run
where only the datasets library is."""

from __future__ import annotations

from typing import Any

ODD = ('say "hello", twice', "first line\nsecond line", "a, b; c | d", "tab\tinside", "ọjọ́ náà — 雨", "'single'", "NA", "null and void")
LABELS = ("1", "true", "NA", "null")
"""Words that tools like to take for numbers, truth values and nothing."""


def texts(split: str, count: int) -> list[dict[str, str]]:
    """Rows with a text and a label, all different, in every split."""
    return [{"text": f"{ODD[i % len(ODD)]} ({split} {i})", "label": LABELS[i % len(LABELS)]} for i in range(count)]


SPLITS: dict[str, list[dict[str, str]]] = {"train": texts("train", 24), "dev": texts("dev", 8), "test": texts("test", 8)}

WORDS = ("Asha", "Juma", "went", "to", "Dar", "es", "Salaam", "today", ".")
IOB2 = ("B-PER", "B-PER", "O", "O", "B-LOC", "I-LOC", "I-LOC", "O", "O")
"""Two persons touch, which only some schemes can say."""
NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def sentences(split: str, count: int) -> list[dict[str, Any]]:
    """Rows with words and tags, all different, in every split."""
    return [{"tokens": [*WORDS, f"{split}{i}"], "ner_tags": [*IOB2, "O"]} for i in range(count)]


TAGGED: dict[str, list[dict[str, Any]]] = {"train": sentences("train", 12), "dev": sentences("dev", 4), "test": sentences("test", 4)}
