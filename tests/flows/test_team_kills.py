"""Each service of the team's set-up is killed in the middle of a run and started again: the run goes on, nothing is lost or done twice, the champion is the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from recompress.ledger import Ledger
from tests.flows.test_team import team  # noqa: F401
from tests.team.kills import KILLED, champion_without_servers, kill_each
from tests.team.project import WATCH, a_project
from tests.team.services import Team

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_whatever_is_killed_the_same_champion_comes_out_and_each_step_was_kept_once(team: Team, tmp_path: Path) -> None:  # noqa: F811
    if not team.outlives_being_killed:
        pytest.skip("the object store of this set-up keeps everything in memory: npm is not here, or its registry does not answer")
    with a_project(tmp_path / "project", team, watch=WATCH + "mode: auto\n") as project:
        project.start()
        assert len(kill_each(project)) == len(KILLED)
        project.wait(lambda: "toy: promoted" in project.services["watcher"].said(), may_fail=True)
        trace = project.champion()
        project.end()
        own = project.services["watcher"].environment
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", own["PGPASSWORD"])
            kept = Counter(entry.body["key"] for entry in Ledger(own["RECOMPRESS_LEDGER"]).entries("step-kept"))
        assert (trace["version"], set(kept.values())) == ("1", {1})
        assert project.ask("audit", "verify")["holds"]
        assert trace["model_sha256"] == champion_without_servers(project, tmp_path / "alone")
