"""Groups stay in one split: a document whose first half is learned from says more about its second half than a stranger does.

Splits that are split off take groups whole. Of a group that the raw data has in two splits, the test split keeps its rows, then dev; the others lose theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from recompress.benchmarks import Example
from recompress.data.clean import Tally
from recompress.integrity.digest import sha256_bytes


def whole_groups(rows: Sequence[Example], share: float, decided: dict[str, bool], kinds: Sequence[tuple[str, ...]]) -> set[int]:
    """Places of at least ``share`` of the rows: whole groups, those of the smallest digests first, and as many rows of every kind (``kinds``: of every label, where a row has one) as groups allow. What
    ``decided`` says of a group, from another slice, holds here too; what is decided here is added."""
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(group_of(row), []).append(i)
    labelled: dict[tuple[str, ...], list[str]] = {}
    for name, places in members.items():
        labelled.setdefault(_kind([kinds[i] for i in places]), []).append(name)
    taken: set[int] = set()
    for names in labelled.values():
        wanted, count = math.ceil(share * sum(len(members[name]) for name in names)), 0
        for name in sorted(names, key=lambda name: (not decided.get(name, False), sha256_bytes(name.encode()))):
            if decided.setdefault(name, count < wanted):
                taken.update(members[name])
                count += len(members[name])
    return taken


def group_of(row: Example) -> str:
    """The name of a row's group; a row without one is a group of its own."""
    return row.group or "\n".join(("", *row.words))


def _kind(kinds: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The kind that most rows of a group have; nothing for rows with a label for each word, which are all different."""
    labels: Counter[tuple[str, ...]] = Counter(kind for kind in kinds if len(kind) == 1)
    return min(labels, key=lambda label: (-labels[label], label)) if labels else ()


def with_whole_groups(rows: Sequence[Example], taken: set[int]) -> set[int]:
    """``taken`` and all rows of the groups that it holds a row of."""
    names = {rows[i].group for i in taken} - {""}
    return taken | {i for i, row in enumerate(rows) if row.group in names}


def groups_of(slices: Mapping[str, Sequence[Example]]) -> set[str]:
    """The names of all groups that the rows of a split belong to."""
    return {row.group for rows in slices.values() for row in rows} - {""}


def without_groups(examples: list[Example], groups: set[str], name: str, tally: Tally) -> list[Example]:
    """Those that belong to none of ``groups``. Counted in rows under ``name``."""
    kept = [example for example in examples if example.group not in groups]
    tally[name] += len(examples) - len(kept)
    return kept
