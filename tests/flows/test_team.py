"""The team's set-up, really started: a base changes on the hub, and without a hand touching anything the new champion is promoted, or proposed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tasks.watch.hubs import NAME
from tests.tasks.watch.mail import Mailbox, mail_server, told_by_mail
from tests.team.project import RECIPE, WATCH, a_project
from tests.team.services import Team

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    started = Team(tmp_path_factory.mktemp("team"))
    try:
        started.start()
        yield started
    finally:
        started.end()


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    """A mail server on this machine, and the address by which people are told through it."""
    with mail_server() as (box, port):
        yield box, told_by_mail(port)


def test_what_is_made_first_is_made_once(team: Team) -> None:
    again = team.run_first()
    assert (again.returncode, again.stdout.count("there already")) == (0, 3), again.stderr


def test_a_base_changes_on_the_hub_and_the_team_has_a_new_champion(team: Team, tmp_path: Path, mailbox: tuple[Mailbox, str]) -> None:
    box, tell = mailbox
    with a_project(tmp_path / "project", team, watch=WATCH + "mode: auto\n", tell=tell) as project:
        project.start()
        project.wait(lambda: "the champion changed" in [mail["Subject"].partition(": ")[2] for _, mail in box.mails])
        first = project.champion()
        assert first["version"] == "1"
        log = project.run_log()
        assert {"int8/1 dynamic_int8 · done in", "sparse/1 magnitude · done in"} <= {
            line.split("  ")[-1].rsplit(" in ", 1)[0] + " in" for line in log.splitlines()
        }

        second = project.commit_base(1)
        project.wait(lambda: second.id in project.git("show", f"HEAD:{RECIPE}"))
        trace = project.champion()
        assert (trace["version"], trace["base"]["revision"]) == ("2", second.id)
        seen, claimed, ended = trace["watched"][:3]
        assert f"saw base {NAME} at {second.id}, digest " in seen, "the story begins with the hub's digest"
        assert ("claimed run" in claimed, ended.endswith("promoted")) == (True, True)
        project.wait(lambda: [mail["Subject"] for _, mail in box.mails].count("toy: the champion changed") == 2, 60)

        project.settings(WATCH + "mode: propose\n")
        third = project.commit_base(2)
        [branch] = project.wait(lambda: project.git("branch", "--list", "--format=%(refname:short)", "recompress/*").split())
        assert third.id in project.git("show", f"{branch}:{RECIPE}")
        assert "report.html" in project.git("ls-tree", "-r", "--name-only", branch)
        project.wait(lambda: "toy: proposed" in [mail["Subject"] for _, mail in box.mails], 60)
        assert project.champion()["version"] == "2", "nothing is promoted before somebody merges"

        project.git("merge", "--quiet", branch)
        project.wait(lambda: [mail["Subject"] for _, mail in box.mails].count("toy: the champion changed") == 3)
        merged = project.champion()
        assert (merged["version"], merged["base"]["revision"]) == ("3", third.id)
        project.end()
        assert project.ask("audit", "verify")["holds"]
        logs = "".join(log.read_text(errors="replace") for log in team.home.glob("*.log")) + project.run_log()
        secret = {name: value for name, value in team.variables.items() if "PASSWORD" in name or name in ("PREFECT_LOGIN", "MLFLOW_SECRET_KEY")}
        assert [name for name, value in secret.items() if value.rpartition(":")[2] in logs] == []
