"""What a look has to lead to. Level-triggered: the world as it is now is compared with what was pinned and with what was run, and no event is believed or needed.

    key of a run = sha256(recipe, digests of its sources)        one run for one key, for ever

Two questions are kept apart. Did the *project* change (recipe, policy, code, packages, data, whatever nothing pins)? A person did that, and it is run as it stands.
Did the *world* move away from a pin? That is proposed with the new pin, once, when it has rested for the settle time; what is seen and then goes back ends in nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from recompress.integrity.digest import sha256_json
from recompress.watch.history import WatchHistory
from recompress.watch.sources import OF_THE_MACHINE, ORIGINS, Sight

AHEAD = timedelta(hours=1)
"""Clocks of machines differ; one that is further ahead is wrong."""


@dataclass(frozen=True)
class Due:
    """A run that has to be made."""

    recipe: str
    sources: Mapping[str, str]
    """The digest or the pin of every source that it is made of."""
    moved: tuple[Sight, ...] = ()
    """The sources whose pins it would move; empty for a run of the project as it stands."""
    why: tuple[str, ...] = ()
    after: str = ""
    """The key of the run before it, so that a project that goes back to what it was is run again."""

    @cached_property
    def key(self) -> str:
        """What makes two runs the same: the recipe and its sources. A proposal is known by what moved, so that an edit of something else does not make it anew."""
        if self.moved:
            return sha256_json({"recipe": self.recipe, "dials": self.sources["recipe"], "moved": {s.source.name: s.digest for s in self.moved}})
        return sha256_json({"recipe": self.recipe, "sources": dict(self.sources), "after": self.after})

    @property
    def superseded(self) -> list[str]:
        """Revisions that are passed over."""
        return [f"{sight.source.place}@{revision}" for sight in self.moved for revision in sight.between]


@dataclass(frozen=True)
class Decision:
    """What a look leads to, each part by itself; all empty where nothing is new."""

    due: tuple[Due, ...] = ()
    begins: Due | None = None
    """The project as it stands, where it was run before it was watched: what later looks are compared with."""
    away: tuple[Sight, ...] = ()
    waits: tuple[Sight, ...] = ()
    settling: tuple[tuple[Sight, datetime], ...] = ()
    """Sources that moved, and when they will have rested."""
    over: tuple[Due, ...] = ()
    """Runs of what is there now that have ended already."""


def decide(recipe: str, sights: Sequence[Sight], history: WatchHistory, now: datetime, settle: timedelta, *, ran_before: bool) -> Decision:
    """What to do. ``ran_before``: whether the recipe was ever run, so that a first look at one that was starts from what is there.

    While a source cannot be seen, or one that a run needs as it is here waits for a person, nothing is run: nothing is retrained on a guess. The origin of data that
    is pinned here is no such source.
    """
    away, waits = tuple(s for s in sights if s.away), tuple(s for s in sights if s.waits)
    if any(sight.source.kind not in ORIGINS for sight in away) or not all(map(as_it_stands, sights)):
        return Decision(away=away, waits=waits)
    rested = {sight.source.name: _rested(sight, history, now, settle) for sight in sights}
    here = {sight.source.name: as_it_stands(sight) for sight in sights}
    project, begins, changed = _of_project(recipe, here, history, ran_before=ran_before)
    fresh = [sight for sight in sights if sight.source.name in changed and not sight.pinned_digest]
    moved = [sight for sight in sights if sight.moved and sight.pins and not sight.waits]
    settling = [(sight, rested[sight.source.name]) for sight in (*fresh, *moved) if rested[sight.source.name] > now]
    wanted = [project] if project is not None and not any(rested[sight.source.name] > now for sight in fresh) else []
    if moved and not any(rested[sight.source.name] > now for sight in moved):
        there = here | {sight.source.name: next(iter(sight.pins.values())) for sight in moved}
        wanted.append(Due(recipe, there, tuple(moved), tuple(map(_in_words, moved))))
    due, over = (tuple(run for run in wanted if (run.key in history.ended) is ended) for ended in (False, True))
    return Decision(due, begins, away, waits, tuple(settling), over)


def as_it_stands(sight: Sight) -> str:
    """What a run of the project as it stands takes of a source: its pin, or what is there."""
    return sight.source.pinned or sight.digest


def _of_project(recipe: str, here: Mapping[str, str], history: WatchHistory, *, ran_before: bool) -> tuple[Due | None, Due | None, set[str]]:
    """The run of the project as it stands, or where watching begins, and the names of what changed.

    Code and packages are the watcher's own. They changed where no run was ever made with these: watchers that have other ones do not undo each other's runs.
    """
    last = history.last_run
    if last is None:
        first = Due(recipe, here, why=("it was never run",))
        return (None, first, set()) if ran_before else (first, None, set())
    is_known = any(_parts(here)[1] == _parts(run["sources"])[1] for run in history.project_runs)
    if _parts(here)[0] == _parts(last["sources"])[0] and is_known:
        return Due(recipe, last["sources"], why=("the project as it stands",), after=last["after"]), None, set()
    changed = [name for name in here if here[name] != last["sources"].get(name)]
    why = tuple(f"{name} changed: {short(last['sources'].get(name, 'nothing'))} → {short(here[name])}" for name in changed)
    return Due(recipe, here, why=why or ("it depends on less",), after=last["key"]), None, set(changed)


def _parts(sources: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What the project depends on, and what the machine does it with."""
    of_machine = {name: digest for name, digest in sources.items() if name in OF_THE_MACHINE}
    return {name: digest for name, digest in sources.items() if name not in of_machine}, of_machine


def short(digest: str) -> str:
    return digest if len(digest) < 13 else f"{digest[:12]}…"


def _in_words(sight: Sight) -> str:
    return f"{sight.source.name} {sight.source.place} is at {short(sight.revision or sight.digest)}, pinned is {short(sight.source.pinned)}"


def _rested(sight: Sight, history: WatchHistory, now: datetime, settle: timedelta) -> datetime:
    """When a source will have stood still for the settle time, since it was first seen so. A date that the place gives is whatever a pusher's clock said, and one of
    this ledger that lies ahead is that of a clock that was wrong: then it was before the next record, and before now."""
    name, before = sight.source.name, history.seen.get(sight.source.name)
    if name in OF_THE_MACHINE:
        since = history.known.get((name, sight.digest), now)
    else:
        since = history.since[name] if before is not None and before.body["digest"] == sight.digest else now
    return (since if since <= now + AHEAD else min(history.no_later.get(name, now), now)) + settle
