"""Every step that MLflow remembers against the ledger: forged ones, the rows that lead to them, and results that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recompress.audit import Trouble
from recompress.ledger import Entry
from tasks.tracking.memory import KIND, Memory, forged
from tasks.tracking.reading import STEP, KeptRun


def check_steps(memory: Memory) -> Iterator[Trouble]:
    """What does not fit. A result that is gone is a notice, because the next run does its step again; so is one that the ledger does not know: nobody believes it."""
    known = dict[str, list[Entry]]()
    for entry in memory.ledger.entries(KIND):
        known.setdefault(str(entry.body["key"]), []).append(entry)
    if not memory.store.exists:
        if known:
            yield Trouble("MLflow", "notice", f"its store is not there; the results of {len(known)} steps are gone, and the next run does them again")
        return
    runs = {run.id: run for run in memory.store.runs()}
    tagged: dict[str, list[KeptRun]] = {}
    for run in runs.values():
        for name in run.tags:
            if name.startswith(STEP):
                tagged.setdefault(name.removeprefix(STEP), []).append(run)
    for key, entries in known.items():
        for line in forged(key, entries, tagged.get(key, []), own=memory.store.is_own):
            yield Trouble(f"step {entries[-1].body['step']}", "broken", line)
        yield from _result(memory, entries[-1].body, runs)
    strangers = [key for key in tagged if key not in known] if memory.store.is_own else []
    if strangers:
        text = f"it remembers {len(strangers)} steps that the ledger does not know ({strangers[0][:12]}…); nobody believes them, and a run that needs them does them again"
        yield Trouble("MLflow", "notice", text)


def _result(memory: Memory, body: dict[str, Any], runs: dict[str, KeptRun]) -> Iterator[Trouble]:
    """Where the latest result of a step lies, and whether it is there. Its artifacts are hashed by whoever finds it again."""
    where = f"step {body['step']}"
    if body["run"] not in runs:
        yield Trouble(where, "notice", f"run {body['run']}, which did it, was deleted; the next run that needs the step does it again")
    elif (home := memory.store.relative(runs[body["run"]].home)) != body["home"]:
        yield Trouble(where, "broken", f"run {body['run']} keeps its artifacts at {home} by MLflow, by the ledger at {body['home']}: the row was changed")
    elif not memory.store.holds(runs[body["run"]].home, body["place"], body["sha256"]):
        yield Trouble(where, "notice", f"its result {body['place']} was altered or is gone; the next run that needs the step does it again")
