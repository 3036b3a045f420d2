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
MENDABLE = (2, 3, 5)
"""Exit codes of a run that says no to what a server, a setting or a person may mend. Earlier versions took them for the end of the matter."""


@dataclass
class WatchHistory:
    """The records of one recipe, read in order."""

    seen: dict[str, Entry] = field(default_factory=dict)
    """The last sight of each source."""
    since: dict[str, datetime] = field(default_factory=dict)
    """Since when a source has the digest that it was last seen with."""
    no_later: dict[str, datetime] = field(default_factory=dict)
    """The earliest time of a record behind that one, for where the clock of that look was ahead."""
    known: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """When a source was first seen with a digest, by both."""
    open: dict[str, Entry] = field(default_factory=dict)
    """For each source that cannot be seen or waits for a person the record that says so."""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The runs that were claimed, by their keys."""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How they ended, by their keys; one that is to be tried again is not here."""
    failed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """How those that are to be tried again came out so far, by their keys."""
    looked_at: datetime | None = None
    """When the last look left a record of itself, whatever it saw."""

    @property
    def project_runs(self) -> list[dict[str, Any]]:
        """The runs of the project as it stood, the last one first."""
        return [run for run in reversed(self.runs.values()) if not run.get("proposal")]

    @property
    def last_run(self) -> dict[str, Any] | None:
        """The last run of the project as it stood."""
        return next(iter(self.project_runs), None)


def history_of(entries: Iterable[Entry], recipe: str) -> WatchHistory:
    """The history of a recipe from the ledger's records of watching."""
    history = WatchHistory()
    for entry in entries:
        body = entry.body
        if entry.kind not in WATCH_KINDS or body.get("recipe") != recipe:
            continue
        history.looked_at = read_time(entry.time)
        for name in history.since:
            history.no_later[name] = min(history.no_later.get(name, history.looked_at), history.looked_at)
        if entry.kind == SEEN:
            before = history.seen.get(body["source"])
            if before is None or before.body["digest"] != body["digest"]:
                history.since[body["source"]] = history.looked_at
                history.no_later.pop(body["source"], None)
            history.known.setdefault((body["source"], body["digest"]), history.looked_at)
            history.seen[body["source"]] = entry
            history.open.pop(body["source"], None)
        elif entry.kind in (AWAY, WAITS):
            history.open[body["source"]] = entry
        elif entry.kind == RUN:
            history.runs.setdefault(body["key"], body)
        elif entry.kind == ENDED and body.get("final") and body.get("exit_code") not in MENDABLE:
            history.ended[body["key"]] = body
            history.failed.pop(body["key"], None)
        elif entry.kind == ENDED:
            history.ended.pop(body["key"], None)
            history.failed.setdefault(body["key"], []).append(body)
    return history
