"""A watcher: looks, writes down what it saw, and sees to it that each change is run once, by whichever watcher gets to it first.

    look → record → decide → claim (unique in the ledger) → lease → run → record how it ended

A watcher may be killed anywhere. What it had claimed is taken up by the next one as soon as its lease runs out; what had ended is not run again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from recompress.errors import StorageError
from recompress.ledger import Ledger
from recompress.ledger.store import Writer
from recompress.methods.known_chains import FILE
from recompress.recipe import Plan
from recompress.settings.file import place_in
from recompress.watch.decide import AHEAD, Due, decide
from recompress.watch.history import AWAY, ENDED, LOOKED, RUN, SEEN, WatchHistory
from recompress.watch.settings import WatchSettings, seconds_of
from recompress.watch.sources import Sight
from tasks.ledger.access import actor, open_ledger
from tasks.running.home import check_name
from tasks.running.recompression import read_plan
from tasks.steps.rehearsal import all_found
from tasks.watch.carry_out import ELSEWHERE, Carried, carry_out
from tasks.watch.circumstances import data_digest, decisions, settings_digest
from tasks.watch.look import LEFT_ALONE, look_at_sources
from tasks.watch.looked import Looked, Pending, named, resting
from tasks.watch.records import claim, history_in, is_said, news, tried_with

Say = Callable[[str], None]
LONGEST_PAUSE_S = 6 * 3600.0
A_DAY_S = 86_400.0
REFUSED = 4
FINAL = (0, REFUSED, 6)
"""Exit codes of a run that would end in the same way again, as long as nobody decides otherwise in the ledger. Everything else may be mended, here or elsewhere."""


@dataclass(frozen=True)
class Watcher:
    """Looks at the recipes of one project. ``carry`` makes a run, and ``all_found`` says whether one would find all of its steps; the tests give others."""

    root: Path
    settings: WatchSettings
    say: Say
    carry: Callable[..., Carried] = carry_out
    all_found: Callable[[Path, Plan], bool] = all_found

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.root)

    def look(self, recipe: Path) -> Looked:
        """One look at one recipe, with all that follows from it. Raises ``InputError`` for a recipe that cannot be read, and ``StorageError``."""
        with suppress(OSError):  # a place for what is read of recipes: without one each look imports every method
            (self.root / FILE).parent.mkdir(exist_ok=True)
        plan, ledger = read_plan(str(recipe), self.root, looks=True), self.ledger
        name = plan.recipe.name
        check_name(self.root, plan)
        sights = look_at_sources(self.root, plan, self.settings, self._left_alone(ledger, name))
        for sight in sights:
            self._pace(ledger, sight)
        history = self._record(ledger, name, sights)
        settle = timedelta(seconds=seconds_of(self.settings.settle))
        begins = history.last_run is None and ledger.last("policy-recorded", recipe=name) is not None
        ran_before = begins and self.all_found(self.root, plan)
        decision = decide(name, sights, history, ledger.clock(), settle, ran_before=ran_before)
        if decision.begins is not None:
            self._begin(ledger, decision.begins)
        looked = Looked(name, sights, decision)
        for due in decision.due:
            self._run(ledger, plan, due, looked)
        for due in decision.over:
            end = history.ended[due.key]
            if not self._is_over(history, due, decisions(ledger, plan)):
                self._run(ledger, plan, due, looked)
            elif end.get("exit_code") == REFUSED:
                looked.pending.append(Pending(due.key, REFUSED, f"{named(due)} was refused: {end.get('summary') or end['outcome']}; the champion stays"))
        self._say_that_it_looked(ledger, name)
        return looked

    def _left_alone(self, ledger: Ledger, recipe: str) -> dict[str, str]:
        """Places that could not be seen lately and are not to be asked yet."""
        history = history_in(ledger, recipe)
        places = {entry.body["place"]: entry.body["why"] for entry in history.open.values() if entry.kind == AWAY}
        pauses = {place: ledger.leases.paused(f"look at {place}") for place in places}
        return {place: f"{places[place]}; it is asked again in {seconds:.0f} s" for place, seconds in pauses.items() if seconds > 0}

    def _pace(self, ledger: Ledger, sight: Sight) -> None:
        """Leave a place alone that could not be seen, longer each time."""
        if sight.away and sight.retry_after_s != LEFT_ALONE:
            ledger.leases.pause(f"look at {sight.source.place}", seconds_of(self.settings.every), LONGEST_PAUSE_S, sight.retry_after_s)

    def _record(self, ledger: Ledger, recipe: str, sights: Sequence[Sight]) -> WatchHistory:
        """Write down what is seen otherwise than before, once for all watchers, and give the history with it."""
        history = history_in(ledger, recipe)
        if not news(history, recipe, sights):
            return history
        with ledger.transaction() as writer:
            for kind, body in news(history_in(writer, recipe), recipe, sights):
                writer.append(kind, body, actor=actor())
                if kind == SEEN:
                    self.say(f"{recipe}: {body['source']} is seen at {body['revision'][:12] or body['digest'][:12]}")
            after = history_in(writer, recipe)
        for sight in sights:
            if not sight.away and sight.source.name in history.open:
                ledger.leases.resume(f"look at {sight.source.place}")
        return after

    def _begin(self, ledger: Ledger, due: Due) -> None:
        """What was run before it was watched is where watching begins."""
        with ledger.transaction() as writer:
            if history_in(writer, due.recipe).last_run is None:
                writer.append(RUN, claim(due), actor=actor())
                writer.append(ENDED, {"key": due.key, "recipe": due.recipe, "outcome": "run before it was watched", "final": True}, actor=actor())

    def _run(self, ledger: Ledger, plan: Plan, due: Due, looked: Looked) -> None:
        """Make a run that is due, unless another watcher makes or has made it."""
        settings, decided = settings_digest(self.root, ledger, plan), decisions(ledger, plan)
        failed = history_in(ledger, due.recipe).failed.get(due.key, [])
        rest = ledger.leases.paused(f"run {due.key}")
        if rest > 0 and tried_with(settings, data_digest(self.root, plan)) in {end.get("tried_with") for end in failed}:
            looked.pending.append(resting(due, failed[-1], rest))
            return
        seconds = seconds_of(self.settings.lease)
        lease = ledger.leases.take(f"watch {due.recipe}", f"{actor()} {socket.gethostname()}:{os.getpid()}", seconds)
        if lease is None:
            looked.elsewhere.append(due.key)
            return
        try:
            if not self._claimed(ledger, due, decided):
                return
            mode = self.settings.mode_of(place_in(self.root, plan.path.resolve()))
            carried = self.carry(self.root, plan, due, mode, self.settings, lambda: ledger.leases.beat(lease, seconds), seconds / 4, self.say)
            if carried.outcome == ELSEWHERE:
                looked.elsewhere.append(due.key)
                return
            final = carried.exit_code in FINAL
            tried = tried_with(settings, data_digest(self.root, plan))  # the data as the run left it: what it brought itself mends nothing
            body = {"key": due.key, "recipe": due.recipe, "final": final, "tried_with": tried, "decisions": decided, **carried.as_json()}
            with ledger.transaction() as writer:
                history = history_in(writer, due.recipe)
                if not self._is_over(history, due, decided) and not is_said(history.failed.get(due.key, []), body):
                    writer.append(ENDED, body, actor=actor())
                if carried.moved_pins and due.moved:
                    self._now_the_project(writer, due)
            looked.runs.append(carried)
            if final:
                ledger.leases.resume(f"run {due.key}")
            else:
                pause = ledger.leases.pause(f"run {due.key}", seconds_of(self.settings.every), LONGEST_PAUSE_S)
                self.say(f"{due.recipe}: the run failed; it is tried again in {pause:.0f} s")
        finally:
            with suppress(StorageError):  # where the database is away the lease runs out by itself
                ledger.leases.give_back(lease)

    def _is_over(self, history: WatchHistory, due: Due, decided: str) -> bool:
        """Whether a run has ended for good: where it was refused, as long as nobody decided anything since."""
        end = history.ended.get(due.key)
        return end is not None and (end.get("exit_code") != REFUSED or end.get("decisions") in (None, decided))

    def _claimed(self, ledger: Ledger, due: Due, decided: str) -> bool:
        """Write the claim, or find that this run was claimed and has not ended: then whoever claimed it is gone or failed, and it is taken up. False where it has ended."""
        with ledger.transaction() as writer:
            history = history_in(writer, due.recipe)
            if self._is_over(history, due, decided):
                return False
            if due.key not in history.runs:
                writer.append(RUN, claim(due), actor=actor())
                return True
        how = "trying a run again" if due.key in history.failed or due.key in history.ended else "taking up a run that was cut off"
        self.say(f"{due.recipe}: {how} ({due.key[:12]}…)")
        return True

    def _now_the_project(self, writer: Writer, due: Due) -> None:
        """The pin moved with the promotion, so the project as it stands now is what was run."""
        last = history_in(writer, due.recipe).last_run
        stands = Due(due.recipe, due.sources, after=last["key"] if last else "")
        writer.append(RUN, claim(stands), actor=actor())
        writer.append(ENDED, {"key": stands.key, "recipe": due.recipe, "outcome": "the pin moved with the promotion", "final": True}, actor=actor())

    def _say_that_it_looked(self, ledger: Ledger, recipe: str) -> None:
        """Once a day, so that silence is not taken for peace."""
        every = seconds_of(self.settings.every)
        last = history_in(ledger, recipe).looked_at
        if last is None or last > ledger.clock() + AHEAD or (ledger.clock() - last).total_seconds() >= max(0.0, A_DAY_S - 1.1 * every):
            ledger.append(LOOKED, {"recipe": recipe, "every_s": every}, actor=actor())
