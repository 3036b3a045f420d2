"""A run that is due, made as a person would make it: ``recompress run`` in a process of its own, under the watcher's lease.

Of a proposal the recipe is run with its new pin and up to the plan, and what came out goes into a branch. In mode ``auto`` the gate decides, and where it lets the
variant through, the pin moves in the project.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recompress.errors import InputError, RecompressError, StorageError
from recompress.recipe import Plan
from recompress.watch.decide import Due
from recompress.watch.pins import move_pins_since
from recompress.watch.settings import Mode, WatchSettings
from tasks.running.lock import is_busy
from tasks.running.servers import die_with_parent, end_group
from tasks.watch.proposal import Proposal, commit_pin, propose, read_exactly

PAUSE_S = 0.2
STOP_S = 2.0
"""What a run may take to end, twice, when a signal came: whoever stops a container kills it after ten seconds."""
ELSEWHERE = "somebody runs this recipe"
"""The outcome where nothing was done and nothing failed: the next look comes again."""
Say = Callable[[str], None]


class Stopped(BaseException):
    """A signal came for the watch while it made a run: the run was ended and nothing is recorded of its end, so that the next look takes it up."""


@dataclass(frozen=True)
class Carried:
    """How a run ended. ``outcome`` is one word or two for the ledger."""

    key: str
    outcome: str
    exit_code: int
    summary: str = ""
    plan: str = ""
    page: str = ""
    branch: str = ""
    pull_request: str = ""
    superseded: tuple[str, ...] = ()
    moved_pins: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"superseded": list(self.superseded)}

    @property
    def text(self) -> str:
        place = f"; branch {self.branch}" if self.branch else ""
        return f"{self.outcome}: {self.summary}{place}{f'; {self.pull_request}' if self.pull_request else ''}"


def carry_out(
    root: Path,
    plan: Plan,
    due: Due,
    mode: Mode,
    settings: WatchSettings,
    beat: Callable[[], bool],
    beat_s: float,
    say: Say,
    ended: Sequence[signal.Signals] = (),
) -> Carried:
    """Make the run. ``beat`` keeps the lease, every ``beat_s`` seconds; where it says that the lease is lost, the run is ended. So it is when a signal stands in
    ``ended``: then ``Stopped`` is raised."""
    for line in due.why:
        say(f"{due.recipe}: {line}")
    recipe, hold = plan.path, bool(due.moved) and mode == "propose"
    before = read_exactly(plan.path)

    def move(text: str) -> str:
        for sight in due.moved:
            text = move_pins_since(before, text, sight.source.name, sight.pins)
        return text

    if due.moved:
        recipe = root / ".recompress" / "watch" / due.key[:16] / plan.path.name
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_bytes(move(before).encode())
    code, said = _run(root, recipe, _options(settings, hold), due.key, beat, beat_s, say, ended)
    promotion = said.get("promotion") or {}
    outcome = _outcome(code, said)
    carried = Carried(
        due.key,
        outcome,
        code,
        str(said.get("summary") or said.get("error") or ""),
        str(promotion.get("plan") or ""),
        str(said.get("page") or ""),
        superseded=tuple(due.superseded),
    )
    if not due.moved or code not in (0, 6):
        return carried
    if mode == "auto" and code == 0:
        return _with_pin(root, plan.path, move, due, carried, say)
    try:
        proposal = propose(root, plan.path, move, Proposal(due.recipe, due.key, _title(due), _story(due, carried), said), settings.forge, say)
    except RecompressError as error:
        say(f"{due.recipe}: {error}")
        return replace(carried, outcome="failed", exit_code=1, summary=str(error))
    return replace(carried, outcome="proposed", branch=proposal.branch, pull_request=proposal.pull_request)


def _with_pin(root: Path, recipe: Path, move: Callable[[str], str], due: Due, carried: Carried, say: Say) -> Carried:
    """Move the pin after a promotion. Where somebody wrote another one meanwhile, theirs stays: they decide, and what was promoted is promoted."""
    try:
        commit_pin(root, recipe, move, _title(due), say)
    except InputError as error:
        say(f"{due.recipe}: {error}")
        return replace(carried, exit_code=6, summary=f"{carried.summary} {error}".strip())
    return replace(carried, moved_pins=True)


def _options(settings: WatchSettings, hold: bool) -> list[str]:
    """What a person would write behind ``recompress run RECIPE``."""
    shared = [*(["--workers", str(settings.workers)] if settings.workers != 1 or settings.pool else []), *(["--pool", settings.pool] if settings.pool else [])]
    return [*shared, *(["--propose"] if hold else [])]


def _run(
    root: Path, recipe: Path, options: list[str], key: str, beat: Callable[[], bool], beat_s: float, say: Say, ended: Sequence[signal.Signals] = ()
) -> tuple[int, dict[str, Any]]:
    """``recompress run RECIPE --json``: its exit code and what it said."""
    command = [sys.executable, "-P", "-m", "flows.cli", "--root", str(root), "run", str(recipe), "--json", *options]
    place = root / ".recompress" / "watch"
    place.mkdir(parents=True, exist_ok=True)
    log = place / f"{key[:16]}.log"
    say(f"{recipe.stem}: the run begins; what it says stands in {log}")
    with log.open("wb") as errors, (place / f"{key[:16]}.json").open("w+b") as results:
        process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=results, stderr=errors, start_new_session=True, preexec_fn=die_with_parent
        )
        beaten, missed = time.monotonic(), set[str]()
        try:
            while process.poll() is None:
                time.sleep(PAUSE_S)
                if ended and process.poll() is None:
                    say("the run is ended; the next look takes it up after its last finished step")
                    raise Stopped
                if time.monotonic() - beaten >= beat_s:
                    beaten = time.monotonic()
                    if not _beats(beat, say, missed):
                        say("the lease was lost, so the run is ended; whoever has it goes on")
                        return 1, {"error": "the lease was lost to another watcher"}
        finally:
            if process.poll() is None:
                end_group(process, STOP_S if ended else None)
        results.seek(0)
        try:
            said = json.loads(results.read() or b"{}")
        except ValueError:
            said = {}
    if "summary" not in said and "error" not in said:
        said["error"] = f"the run ended with {process.returncode}; what it said stands in {log}"
    return process.returncode, said


def _beats(beat: Callable[[], bool], say: Say, missed: set[str]) -> bool:
    """Whether the lease is still held. While the ledger's database is away nobody can take it either, so the run goes on; that is said once, and noted in ``missed``."""
    try:
        held = beat()
    except StorageError as error:
        if not missed:
            say(f"the lease could not be renewed, and is tried again: {error}")
        missed.add("lease")
        return True
    missed.clear()
    return held


def _outcome(code: int, said: dict[str, Any]) -> str:
    promotion = said.get("promotion") or {}
    if is_busy(said.get("error")):
        return ELSEWHERE
    if code == 0 and promotion.get("model"):
        return "promoted" if "promotion" in said.get("done", ()) else "unchanged"
    return {0: "unchanged", 4: "refused", 6: "waiting for approval", 3: "data refused", 2: "input refused", 5: "integrity"}.get(code, "failed")


def _title(due: Due) -> str:
    return f"{due.recipe}: " + ", ".join(f"{sight.source.place} at {(sight.revision or sight.digest)[:12]}" for sight in due.moved)


def _story(due: Due, carried: Carried) -> str:
    """The body of the commit: what moved, what is passed over, and the verdict in a line."""
    lines = [*due.why, *(f"superseded: {name}" for name in due.superseded), carried.summary]
    return "\n".join([*lines, f"plan: {carried.plan}" if carried.plan else "", f"key: {due.key}"]).strip()
