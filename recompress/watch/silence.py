"""Times in which nobody looked. A watch leaves a record at least once a day, so that a longer gap is one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from recompress.ledger import Entry
from recompress.ledger.body import read_time
from recompress.watch.decide import AHEAD
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
    last: dict[str, tuple[Entry, datetime]] = {}
    limits: dict[str, timedelta] = {}
    gaps = []
    entries = list(entries)
    for entry, time in zip(entries, believed_times([read_time(entry.time) for entry in entries], now), strict=True):
        if entry.kind not in WATCH_KINDS:
            continue
        recipe = str(entry.body["recipe"])
        if recipe in last:
            gaps += _gap(recipe, *last[recipe], time, limits.get(recipe, A_DAY), ended=True)
        if entry.kind == LOOKED:
            limits[recipe] = max(A_DAY, timedelta(seconds=float(entry.body.get("every_s") or 0)))
        last[recipe] = entry, time
    for recipe, (entry, time) in last.items():
        gaps += _gap(recipe, entry, time, now, limits.get(recipe, A_DAY), ended=False)
    return sorted(gaps, key=lambda gap: gap.since)


def believed_times(times: Sequence[datetime], now: datetime) -> list[datetime]:
    """When records were written, by the most of them whose times do not run backwards and do not lie ahead of now. Of another, whose clock was wrong, only its place
    is known: it is given the time of the record before it."""
    ends, places, before = list[datetime](), list[int](), dict[int, int]()  # of the chains of each length the one that ends soonest
    for place, time in enumerate(times):
        if time > now + AHEAD:
            continue
        length = bisect_right(ends, time)
        before[place] = places[length - 1] if length else -1
        ends[length:], places[length:] = [time, *ends[length + 1 :]], [place, *places[length + 1 :]]
    believed, place = set[int](), places[-1] if places else -1
    while place >= 0:
        believed.add(place)
        place = before[place]
    latest = min((times[place] for place in believed), default=now)
    found = []
    for place, time in enumerate(times):
        latest = time if place in believed else latest
        found.append(latest)
    return found


def _gap(recipe: str, before: Entry, since: datetime, end: datetime, limit: timedelta, *, ended: bool) -> list[Silence]:
    return [Silence(recipe, since, end if ended else None, before)] if end - since > TIMES * limit else []
