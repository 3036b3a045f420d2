"""Times in which nobody looked. A watch leaves a record at least once a day, so that a longer gap is one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from recompress.ledger import Entry
from recompress.ledger.body import read_time
from recompress.watch.history import LOOKED, WATCH_KINDS

A_DAY = timedelta(days=1)
TIMES = 2
"""So many of the longest usual pauses make a gap."""


@dataclass(frozen=True)
class Silence:
    """A gap between two looks at a recipe; ``until`` is ``None`` where it goes on."""

    recipe: str
    since: datetime
    until: datetime | None
    record: Entry
    """The last record before it."""

    @property
    def text(self) -> str:
        end = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "until now"
        return f"nobody looked at what {self.recipe} depends on from {self.since:%Y-%m-%d %H:%M} {end}"


def silences(entries: Iterable[Entry], now: datetime) -> list[Silence]:
    """Every gap longer than two days, or than two of the intervals at which the watch said that it looks, in order."""
    last: dict[str, Entry] = {}
    limits: dict[str, timedelta] = {}
    gaps = []
    for entry in entries:
        if entry.kind not in WATCH_KINDS:
            continue
        recipe = str(entry.body["recipe"])
        if recipe in last:
            gaps += _gap(recipe, last[recipe], read_time(entry.time), limits.get(recipe, A_DAY), ended=True)
        if entry.kind == LOOKED:
            limits[recipe] = max(A_DAY, timedelta(seconds=float(entry.body.get("every_s") or 0)))
        last[recipe] = entry
    for recipe, entry in last.items():
        gaps += _gap(recipe, entry, now, limits.get(recipe, A_DAY), ended=False)
    return sorted(gaps, key=lambda gap: gap.since)


def _gap(recipe: str, before: Entry, end: datetime, limit: timedelta, *, ended: bool) -> list[Silence]:
    since = read_time(before.time)
    return [Silence(recipe, since, end if ended else None, before)] if end - since > TIMES * limit else []
