"""BIO tags: ``B-PER`` begins an entity of type PER, ``I-PER`` continues it, ``O`` stands outside of all."""

from __future__ import annotations

from collections.abc import Sequence


def continues_nothing(tags: Sequence[str]) -> list[int]:
    """Positions of ``I-`` tags that do not follow a tag of their own type."""
    before = ("O", *tags)
    if not any(_breaks(*pair) for pair in set(zip(before, tags, strict=False))):
        return []
    return [i for i, tag in enumerate(tags) if _breaks(before[i], tag)]


def _breaks(before: str, tag: str) -> bool:
    return tag[:2] == "I-" and before[2:] != tag[2:]


def valid_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """The same entities, with every ``I-`` that continues nothing written as the ``B-`` that it is."""
    wrong = set(continues_nothing(tags))
    return tuple(f"B-{tag[2:]}" if i in wrong else tag for i, tag in enumerate(tags)) if wrong else tuple(tags)
