"""A look at what the recipes depend on, at its time, as a Prefect worker takes it.

recompress schedule --watch --every 15m
"""

from __future__ import annotations

from pathlib import Path

from prefect import State, flow

from recompress.watch.settings import read_watch_settings
from tasks.running.recompression import Outcome, Say
from tasks.schedule.ending import ended
from tasks.watch.loop import look_once, recipes_of
from tasks.watch.tell import begin_telling, tell_people
from tasks.watch.watcher import Watcher


@flow(name="watch", flow_run_name="watch", validate_parameters=False, persist_result=False)
def watch(root: str = ".") -> State:
    """Do what ``recompress watch --once`` does, and tell people. What fails is looked at again at the next time."""

    def do(home: Path, say: Say) -> Outcome:
        begin_telling(home)
        looks, code = look_once(Watcher(home, read_watch_settings(home), say), recipes_of(home, ()))
        tell_people(home, say)
        return Outcome(code, "\n".join(look.text() for look in looks) or "no recipe could be looked at")

    return ended(root, do)
