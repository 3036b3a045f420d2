"""A run that is due, made as a person would make it: ``recompress run`` in a process of its own, under the watcher's lease.

Of a proposal the recipe is run with its new pin and up to the plan, and what came out goes into a branch. In mode ``auto`` the gate decides, and where it lets the
variant through, the pin moves in the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recompress.errors import RecompressError
from recompress.recipe import Plan
from recompress.watch.decide import Due
from recompress.watch.pins import move_pins
from recompress.watch.settings import Mode, WatchSettings
from tasks.running.lock import is_busy
from tasks.running.servers import die_with_parent, end_group
from tasks.watch.proposal import Proposal, commit_pin, propose

PAUSE_S = 0.2
ELSEWHERE = "somebody runs this recipe"
"""The outcome where nothing was done and nothing failed: the next look comes again."""
Say = Callable[[str], None]


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


def carry_out(root: Path, plan: Plan, due: Due, mode: Mode, settings: WatchSettings, beat: Callable[[], bool], beat_s: float, say: Say) -> Carried:
    """Make the run. ``beat`` keeps the lease, every ``beat_s`` seconds; where it says that the lease is lost, the run is ended."""
    for line in due.why:
        say(f"{due.recipe}: {line}")
    recipe, text = plan.path, plan.path.read_text(encoding="utf-8")
    hold = bool(due.moved) and mode == "propose"
    if due.moved:
        for sight in due.moved:
            text = move_pins(text, sight.source.name, sight.pins)
        recipe = root / ".recompress" / "watch" / due.key[:16] / plan.path.name
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(text, encoding="utf-8")
    code, said = _run(root, recipe, hold, due.key, beat, beat_s, say)
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
        commit_pin(root, plan.path, text, _title(due), say)
        return Carried(**{**asdict(carried), "moved_pins": True})
    try:
        proposal = propose(root, plan.path, text, Proposal(due.recipe, due.key, _title(due), _story(due, carried), said), settings.forge, say)
    except RecompressError as error:
        say(f"{due.recipe}: {error}")
        return Carried(**{**asdict(carried), "outcome": "failed", "exit_code": 1, "summary": str(error)})
    return Carried(**{**asdict(carried), "outcome": "proposed", "branch": proposal.branch, "pull_request": proposal.pull_request})


def _run(root: Path, recipe: Path, hold: bool, key: str, beat: Callable[[], bool], beat_s: float, say: Say) -> tuple[int, dict[str, Any]]:
    """``recompress run RECIPE --json``: its exit code and what it said."""
    command = [sys.executable, "-P", "-m", "flows.cli", "--root", str(root), "run", str(recipe), "--json", *(["--propose"] if hold else [])]
    place = root / ".recompress" / "watch"
    place.mkdir(parents=True, exist_ok=True)
    log = place / f"{key[:16]}.log"
    with log.open("wb") as errors, (place / f"{key[:16]}.json").open("w+b") as results:
        process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=results, stderr=errors, start_new_session=True, preexec_fn=die_with_parent
        )
        beaten = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(PAUSE_S)
                if time.monotonic() - beaten >= beat_s:
                    beaten = time.monotonic()
                    if not beat():
                        say("the lease was lost, so the run is ended; whoever has it goes on")
                        return 1, {"error": "the lease was lost to another watcher"}
        finally:
            if process.poll() is None:
                end_group(process)
        results.seek(0)
        try:
            said = json.loads(results.read() or b"{}")
        except ValueError:
            said = {}
    if "summary" not in said and "error" not in said:
        said["error"] = f"the run ended with {process.returncode}; what it said stands in {log}"
    return process.returncode, said


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
