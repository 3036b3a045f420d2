"""Taking up what a killed process left behind.

Aliases are moved under one lock, so at most one promotion can be unfinished: the one of the last intent. Where it stands, and what the registry says, decide:

    stands at              the alias names             what is done
    intent                 the old champion            withdrawn: nothing was moved, the plan is approved as before
    intent                 the new version             finished: hashed, committed
    alias-moved, verified  the new version             finished, or undone when the files are bad
    undoing                the new version             moved back
    undoing                the old champion            recorded (none, if that version was deleted)
    committed              (any)                       the anchor is set if it is missing
    anything else                                      somebody moved the alias in between: recorded, refused
"""

from __future__ import annotations

import logging

from recompress.errors import IntegrityError
from recompress.ledger import Entry
from recompress.promotion.effects import Effects
from recompress.promotion.states import UNFINISHED, Progress, progress_of, step

log = logging.getLogger(__name__)


def recover(effects: Effects) -> Entry | None:
    """Finish or undo, and give the record of it; ``None`` when nothing was left. The caller holds the lock."""
    intent = effects.ledger.last("promotion-intent")
    if intent is None:
        return None
    progress = progress_of(effects.ledger, intent.body["plan"])
    if progress.state == "committed":
        effects.anchor(progress)
    if progress.state not in UNFINISHED:
        return None
    champion = effects.registry.champion(progress.plan.model)
    new = intent.body["version"]
    action = _action(progress.state, champion, new=new, old=effects.way_back(progress))
    body = {"plan": progress.digest, "model": progress.plan.model, "state": progress.state, "champion": champion, "action": action}
    entry = effects.ledger.append("recovery", body, actor=effects.actor)
    log.warning("a promotion of %s to version %s was cut off at %s: %s", progress.plan.model, new, progress.state, action)
    effects.at(progress, "recovery-recorded")
    _act(effects, progress, action, champion)
    return entry


def _action(state: str, champion: str | None, *, new: str, old: str | None) -> str:
    if state == "undoing":
        return "move back" if champion == new else "record" if champion == old else "refuse"
    if champion == new:
        return "finish"
    return "withdraw" if state == "intent" and champion == old else "refuse"


def _act(effects: Effects, progress: Progress, action: str, champion: str | None) -> None:
    if action == "finish":
        try:
            effects.finish(progress)
        except IntegrityError as error:  # it was undone, and that is on record; whoever recovers goes on
            log.warning("%s", error)
    elif action == "withdraw":
        step(effects.ledger, progress, "promotion-withdrawn", {"champion": champion}, actor=effects.actor)
    elif action == "move back":
        effects.undo(progress, "taken up after a crash")
    elif action == "record":
        effects.record_undone(progress)
    else:
        # once the move stands in the ledger, whoever undid it by hand moved the alias from there, back to the old champion or elsewhere
        moved_to = progress.said("promotion-intent")["version"] if progress.state in ("alias-moved", "verified") else None
        effects.note_outside_move(progress.plan.model, moved_to=moved_to)
        effects.refuse(progress, "alias-moved-outside", f"while the promotion was cut off, somebody made version {champion} the champion")
