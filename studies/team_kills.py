"""What comes out of a run of a team's set-up in which every service was killed: each service at each moment, six runs with six kills.

    python -m studies.team_kills > studies/results/team_kills.md

Each run has a set-up of its own (tests/team), started from compose.yaml's commands on loopback; what is killed (SIGKILL, with all that it has started) is started again
after three seconds. The champion of a run without servers, and with nothing killed, is what each is held against.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

from recompress.ledger import Ledger
from tests.team.kills import AWAY_S, KILLED, MOMENTS, champion_without_servers, kill_each
from tests.team.project import WATCH, Project, a_project
from tests.team.services import Team


def one_run(order: tuple[str, ...], home: Path) -> tuple[bool, bool, bool, float]:
    """Whether the champion is that without kills, each step was kept once, and the audit holds; and how long it took from the first look on, in seconds."""
    (home / "team").mkdir(parents=True)
    team = Team(home / "team")
    try:
        team.start()
        with a_project(home / "project", team, watch=WATCH + "mode: auto\n") as project:
            begun = time.monotonic()
            project.start()
            kill_each(project, order)
            project.wait(lambda: "toy: promoted" in project.services["watcher"].said(), may_fail=True)
            seconds = time.monotonic() - begun
            digest = project.champion()["model_sha256"]
            project.end()
            once = set(kept_steps(project).values()) == {1}
            return digest == champion_without_servers(project, home / "alone"), once, bool(project.ask("audit", "verify")["holds"]), seconds
    finally:
        team.end()


def kept_steps(project: Project) -> Counter[str]:
    own = project.services["watcher"].environment
    os.environ["PGPASSWORD"] = own["PGPASSWORD"]
    return Counter(entry.body["key"] for entry in Ledger(own["RECOMPRESS_LEDGER"]).entries("step-kept"))


def main() -> None:
    print("# Everything killed once in a run, at every moment\n")
    print(f"`python -m studies.team_kills`, {date.today()}. What is killed stays away for {AWAY_S:.0f} s.\n")
    print(f"| run | {' | '.join(moment.name for moment in MOMENTS)} | same champion | each step kept once | audit holds | s |")
    print(f"|---|{'---|' * (len(MOMENTS) + 4)}")
    for turn in range(len(KILLED)):
        order = KILLED[turn:] + KILLED[:turn]
        with tempfile.TemporaryDirectory(prefix="recompress-kills-") as home:
            same, once, holds, seconds = one_run(order, Path(home))
        print(f"| {turn + 1} | {' | '.join(order)} | {_said(same)} | {_said(once)} | {_said(holds)} | {seconds:.0f} |", flush=True)
        print(f"run {turn + 1} of {len(KILLED)} is done", file=sys.stderr)


def _said(so: bool) -> str:
    return "yes" if so else "**no**"


if __name__ == "__main__":
    main()
