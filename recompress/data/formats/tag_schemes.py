"""Ways to write entities as one tag a word, and each of them as IOB2.

iob2    B-PER I-PER B-PER O      B- begins each entity
iob1    I-PER I-PER B-PER O      B- begins one only where it touches another of its type
io      I-PER I-PER I-PER O      entities of a type that touch are one; the prefix may be left out: PER PER PER O
bioes   B-PER E-PER S-PER O      E- ends an entity, S- is one of a single word
bilou   B-PER L-PER U-PER O      the same in other letters
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recompress.data.formats.bio import valid_bio
from recompress.data.layout import Tags

_TYPE = r"[^\s-]\S*"
TAGS: dict[Tags, re.Pattern[str]] = {
    "iob2": re.compile(rf"O|[BI]-{_TYPE}"),
    "iob1": re.compile(rf"O|[BI]-{_TYPE}"),
    "io": re.compile(rf"O|(?:I-)?(?![BIESLU]-){_TYPE}"),
    "bioes": re.compile(rf"O|[BIES]-{_TYPE}"),
    "bilou": re.compile(rf"O|[BILU]-{_TYPE}"),
}
LOOKS: dict[Tags, str] = {
    "iob2": "O, B-PER or I-PER",
    "iob1": "O, B-PER or I-PER",
    "io": "O, I-PER or PER",
    "bioes": "O, B-PER, I-PER, E-PER or S-PER",
    "bilou": "O, B-PER, I-PER, L-PER or U-PER",
}
_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")


def to_iob2(tags: Sequence[str], scheme: Tags) -> tuple[str, ...]:
    """The same entities in IOB2. What a scheme does not allow (an I- behind an E-) begins an entity; IOB2 itself stays as it is, so that preparation counts
    what it repairs in it. Every tag must be one of ``TAGS[scheme]``."""
    if scheme == "iob2":
        return tuple(tags)
    if scheme == "iob1":
        return valid_bio(tags)
    written: list[str] = []
    before, open_ = "", False
    for tag in tags:
        prefix, kind = _parts(tag, scheme)
        goes_on = open_ and kind == before and prefix not in _BEGINS
        written.append(tag if tag == "O" else f"{'I' if goes_on else 'B'}-{kind}")
        before, open_ = kind, tag != "O" and prefix not in _ENDS
    return tuple(written)


def labels_in_iob2(labels: Iterable[str], scheme: Tags) -> tuple[str, ...]:
    """Labels as ``params.yaml`` lists them, in IOB2, in their order: those of another scheme as they are read, and before each I- the B- that begins its
    entities, which preparation writes where an I- continues nothing."""
    listed = tuple(labels)
    written: dict[str, None] = {"O": None} if scheme == "spans" else {}
    for label in listed:
        prefix, kind = _parts(label, "io" if scheme == "spans" else scheme)
        if label == "O" or not kind:
            written[label] = None
        elif scheme in ("io", "spans") or prefix in ("E", "L"):
            written |= {f"B-{kind}": None, f"I-{kind}": None}
        elif prefix in _BEGINS:
            written[f"B-{kind}"] = None
        elif f"B-{kind}" in listed:
            written[label] = None
        else:
            written |= {f"B-{kind}": None, label: None}
    return tuple(written)


def _parts(tag: str, scheme: Tags) -> tuple[str, str]:
    """Prefix and type; a type without a prefix, as ``io`` may have it, is inside."""
    prefix, dash, kind = tag.partition("-")
    if dash and len(prefix) == 1 and prefix in "BIESLU":
        return prefix, kind
    return ("I", tag) if scheme == "io" and tag != "O" else ("", "")
