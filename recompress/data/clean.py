"""Repair what can be repaired in one row, leave out what cannot, and count both.

Every step has a name; under that name ``preparation.json`` says how often it was needed, and the page of data checks shows the same defect in the raw data.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

from recompress.benchmarks import Example
from recompress.benchmarks.benchmark import NO_LABEL_HOLDS
from recompress.data.characters import LOST, has_broken, has_half, has_hidden, is_nfc, repaired, to_nfc, without_hidden
from recompress.data.formats.bio import continues_nothing, valid_bio
from recompress.data.questions import moved

Tally = Counter[str]
Key = tuple[str, ...]
HEADING_CHARACTERS = 20
ACCENTS = (
    *((0x0483, 0x0489), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670), (0x06D6, 0x06ED), (0x0711, 0x0711), (0x0730, 0x074A)),
    *((0x0898, 0x089F), (0x08CA, 0x08FF), (0x135D, 0x135F), (0x180B, 0x180F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE2F)),
)
"""Marks that are no letters: points of Arabic, Hebrew and Syriac, titlos, and what is set above symbols. In all other scripts a mark is a vowel or a tone, without
which the word is another: Devanagari, Bengali, Tamil, Thai, Khmer, Burmese, Tibetan, Thaana, N'Ko."""


@cache
def _no_letters() -> re.Pattern[str]:
    """What stands between words. Marks that are letters are part of a word; the accents of Latin, Greek and Cyrillic count too: in many languages they are tones."""
    marks = [place for place in (*range(0x0300, 0x10000), *range(0x10A00, 0x1E950)) if unicodedata.category(chr(place))[0] == "M"]
    kept = [place for place in marks if not any(first <= place <= last for first, last in ACCENTS)]
    return re.compile(f"[^\\w\u0300-\u036f{''.join(map(chr, kept))}]+|_+")


def tells_something(example: Example) -> bool:
    """Whether it is a leak when this row stands in two splits. A short line without a label is not: any two articles share headings like "History"."""
    return bool(example.labels) or len(example.words[0].strip()) > HEADING_CHARACTERS


def likeness(example: Example) -> str:
    """What two examples share that differ only in case, punctuation, spaces, or the way in which characters are written. Tone marks count."""
    text = to_nfc(" ".join(example.words).casefold())
    return _no_letters().sub(" ", text).strip() or text


def clean(
    examples: Iterable[Example], labels: frozenset[str] | None, tally: Tally, *, tagged: bool, running: bool = False, spans: bool = False
) -> list[Example]:
    """Rows with whole characters, composed, without empty words, with known labels and entities that begin. ``tagged``: each word has a tag of its own;
    otherwise the only word is a whole text. ``running``: the rows follow on each other, or are prompts whose labels are texts, so that a line of punctuation stays, and
    spaces as they are.
    ``spans``: a question, and a text whose parts are its answers; these move with the characters that are repaired before them, and spaces stay.

    Counted in words: ``not_nfc``, ``hidden_characters``, ``broken_characters``, ``empty_words``; in tags: ``invalid_bio``; in rows left out:
    ``lost_characters``, ``unknown_labels``, ``lost_answers`` (in a repaired text not found again), ``no_words`` (nothing but punctuation in a row without labels, or nothing at all).
    """
    kept = []
    for example in examples:
        row = _clean_question(example, tally) if spans else _clean_row(example, labels, tally, tagged, running)
        if row is None:
            continue
        if not row.labels and not running and not any(character.isalpha() for character in row.words[0]):
            tally["no_words"] += 1
            continue
        kept.append(row)
    return kept


def _clean_row(example: Example, known: frozenset[str] | None, tally: Tally, tagged: bool, running: bool) -> Example | None:
    text = " ".join(example.words)
    if LOST in text or has_half(" ".join((text, *example.labels, example.slice, example.group))):
        tally["lost_characters"] += 1
        return None
    if known is not None and not known.issuperset({*example.labels} - {NO_LABEL_HOLDS}):
        tally["unknown_labels"] += 1
        return None
    words, labels = example.words, example.labels
    if not (text.isascii() and text.isprintable()):
        words = tuple(_clean_text(word, tally) for word in words)
    if running:
        labels = tuple(_clean_text(label, Counter()) for label in labels)
    if not tagged and not running:
        words = tuple(" ".join(word.split()) for word in words)
    elif tagged and not all(word.strip() for word in words):
        tally["empty_words"] += sum(not word.strip() for word in words)
        labels = tuple(label for word, label in zip(words, labels, strict=True) if word.strip())
        words = tuple(word for word in words if word.strip())
    if not (any if tagged else all)(word.strip() for word in words):  # each text of a pair has to say something
        tally["no_words"] += 1
        return None
    if tagged and (wrong := continues_nothing(labels)):
        tally["invalid_bio"] += len(wrong)
        labels = valid_bio(labels)
    return Example(words, labels, example.slice, example.group)


def _clean_question(example: Example, tally: Tally) -> Example | None:
    question, context = example.words
    if LOST in question + context or has_half(" ".join((question, context, *example.labels, example.slice, example.group))):
        tally["lost_characters"] += 1
        return None
    question, text = " ".join(_clean_text(question, tally).split()), _clean_text(context, tally)
    labels = moved(example.labels, context, text, lambda part: _clean_text(part, Counter()))
    if not question or not text.strip() or (example.labels and not labels):
        tally["lost_answers" if question and text.strip() else "no_words"] += 1
        return None
    return Example((question, text), labels, example.slice, example.group)


def _clean_text(text: str, tally: Tally) -> str:
    """Counted by word: by token where the row has tokens, by what stands between spaces in a text."""
    if has_broken(text):
        tally["broken_characters"] += sum(has_broken(word) for word in text.split(" "))
        text = repaired(text)
    if not is_nfc(text):
        tally["not_nfc"] += sum(not is_nfc(word) for word in text.split(" "))
        text = to_nfc(text)
    if has_hidden(text):
        tally["hidden_characters"] += sum(has_hidden(word) for word in text.split(" "))
        text = to_nfc(without_hidden(text))
    return text


def without_conflicts(examples: list[Example], tally: Tally) -> list[Example]:
    """Where one text is labelled in two ways, the more frequent labelling stays; without a majority none does. Counted in rows as ``conflicts``."""
    votes: dict[Key, Counter[Key]] = {}
    for example in examples:
        votes.setdefault(example.words, Counter())[example.labels] += 1
    kept = []
    for example in examples:
        ranked = votes[example.words].most_common(2)
        tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
        if tied or example.labels != ranked[0][0]:
            tally["conflicts"] += 1
        else:
            kept.append(example)
    return kept


def without_repeats(examples: list[Example], tally: Tally) -> list[Example]:
    """The first of each text. Counted in rows as ``repeats``."""
    first: dict[Key, Example] = {}
    for example in examples:
        first.setdefault(example.words, example)
    kept = list(first.values())
    tally["repeats"] += len(examples) - len(kept)
    return kept


def without_likes(examples: list[Example], others: set[str], name: str, tally: Tally) -> list[Example]:
    """Those whose likeness is not among ``others``. Counted in rows under ``name``."""
    kept = [example for example in examples if likeness(example) not in others]
    tally[name] += len(examples) - len(kept)
    return kept
