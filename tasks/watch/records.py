"""The records of a watcher: what a look adds to the ledger, and what it reads there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recompress.integrity.digest import sha256_json
from recompress.ledger import Ledger
from recompress.ledger.store import Reader
from recompress.watch.decide import Due
from recompress.watch.history import AWAY, SEEN, WAITS, WATCH_KINDS, WatchHistory, history_of
from recompress.watch.sources import OF_THE_MACHINE, Sight


def history_in(reader: Reader | Ledger, recipe: str) -> WatchHistory:
    """What earlier looks at a recipe left in the ledger."""
    return history_of(reader.entries(*WATCH_KINDS, recipe=recipe), recipe)


def tried_with(settings: str, data: str) -> str:
    """The digest of what may mend a run that failed."""
    return sha256_json([settings, data])


def is_said(failed: Sequence[dict[str, Any]], body: dict[str, Any]) -> bool:
    """Whether the last try came out in just this way, so that nobody is told again."""
    return bool(failed) and all(failed[-1].get(key) == body.get(key) for key in ("exit_code", "tried_with", "summary", "final"))


def claim(due: Due) -> dict[str, Any]:
    """The body of the record by which one watcher takes a run."""
    return {
        "key": due.key,
        "recipe": due.recipe,
        "sources": dict(due.sources),
        "after": due.after,
        "proposal": bool(due.moved),
        "superseded": due.superseded,
        "why": list(due.why),
    }


def news(before: WatchHistory, recipe: str, sights: Sequence[Sight]) -> list[tuple[str, dict[str, Any]]]:
    """The records that a look adds: one for each source that is seen otherwise, and one when a source begins to be out of sight or to wait."""
    found = list[tuple[str, dict[str, Any]]]()
    for sight in sights:
        name, opened = sight.source.name, before.open.get(sight.source.name)
        about = {"recipe": recipe, "source": name, "place": sight.source.place}
        if sight.away:
            if opened is None or opened.kind != AWAY:
                found.append((AWAY, about | {"why": sight.away}))
        elif sight.waits:
            if opened is None or (opened.kind, opened.body["why"]) != (WAITS, sight.waits):
                found.append((WAITS, about | {"why": sight.waits}))
        else:
            seen = {"digest": sight.digest, "revision": sight.revision}
            last = before.seen.get(name)
            if name in OF_THE_MACHINE and (name, sight.digest) in before.known:
                continue  # another watcher's machine, or this one's again
            if opened is not None or last is None or {key: last.body[key] for key in seen} != seen:
                relevant = last is None or last.body["digest"] != sight.digest
                found.append((SEEN, about | seen | {"pinned": sight.source.pinned, "relevant": relevant}))
    return found
