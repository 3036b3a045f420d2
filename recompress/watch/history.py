"""What earlier looks left in the ledger, for one recipe: the last sight of each source, the runs that were made, and who waits for what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recompress.ledger import Entry
from recompress.ledger.body import read_time

SEEN, AWAY, WAITS, LOOKED, RUN, ENDED, TOLD = "source-seen", "source-not-visible", "source-waits", "watch-looked", "watch-run", "watch-run-ended", "people-told"
WATCH_KINDS = (SEEN, AWAY, WAITS, LOOKED, RUN, ENDED)


@dataclass
class WatchHistory:
    """The records of one recipe, read in order."""

    seen: dict[str, Entry] = field(default_factory=dict)
    """The last sight of each source."""
    since: dict[str, datetime] = field(default_factory=dict)
    """Since when a source has the digest that it was last seen with."""
    open: dict[str, Entry] = field(default_factory=dict)
    """For each source that cannot be seen or waits for a person the record that says so."""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The runs that were claimed, by their keys."""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How they ended, by their keys; one that failed may be tried again and is not here."""
    failures: dict[str, int] = field(default_factory=dict)
    looked_at: datetime | None = None
    """When the last look left a record of itself, whatever it saw."""

    @property
    def last_run(self) -> dict[str, Any] | None:
        """The last run of the project as it stood."""
        return next((run for run in reversed(self.runs.values()) if not run.get("proposal")), None)


def history_of(entries: Iterable[Entry], recipe: str) -> WatchHistory:
    """The history of a recipe from the ledger's records of watching."""
    history = WatchHistory()
    for entry in entries:
        body = entry.body
        if entry.kind not in WATCH_KINDS or body.get("recipe") != recipe:
            continue
        history.looked_at = read_time(entry.time)
        if entry.kind == SEEN:
            before = history.seen.get(body["source"])
            if before is None or before.body["digest"] != body["digest"]:
                history.since[body["source"]] = read_time(entry.time)
            history.seen[body["source"]] = entry
            history.open.pop(body["source"], None)
        elif entry.kind in (AWAY, WAITS):
            history.open[body["source"]] = entry
        elif entry.kind == RUN:
            history.runs.setdefault(body["key"], body)
        elif entry.kind == ENDED and body.get("final"):
            history.ended[body["key"]] = body
        elif entry.kind == ENDED:
            history.failures[body["key"]] = history.failures.get(body["key"], 0) + 1
    return history
