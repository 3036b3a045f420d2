"""Every service of a team's set-up killed at some moment of one run, each at another, and started again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.toy_project import run
from tests.team.project import RECIPE, Project

AWAY_S = 3.0
"""How long what was killed stays away."""
KILLED = ("postgres", "worker-1", "prefect", "mlflow", "s3", "watcher")
"""In the order in which they are killed; the watcher last, because its run ends with it and is taken up from the beginning, where all is found."""


@dataclass(frozen=True)
class Moment:
    """A moment of a run: when ``is_there``, at the earliest."""

    name: str
    is_there: Callable[[Project], bool]


def says(text: str) -> Callable[[Project], bool]:
    """When the run says it."""
    return lambda project: text in project.run_log()


MOMENTS = (
    Moment("while the baseline is trained", says("baseline · fine-tuning")),
    Moment("while a worker is at a step", lambda project: "Beginning flow run" in project.services["worker-1"].said()),
    Moment("when a step is done", says("· done in")),
    Moment("while the dev split is tried", says("/dev-quality")),
    Moment("while time is measured", says("/speed")),
    Moment("while the test split is looked at", says("/quality")),
)


def kill_each(project: Project, order: tuple[str, ...] = KILLED) -> list[str]:
    """Kill the services in this order, one at each moment, and start each again after a while. Gives what was done, in words."""
    done = []
    for moment, name in zip(MOMENTS, order, strict=True):
        project.wait(lambda moment=moment: moment.is_there(project), may_fail=True)  # type: ignore[misc]
        service = (project.team.services | project.services)[name]
        service.kill()
        time.sleep(AWAY_S)
        service.start()
        service.wait()
        done.append(f"{name} {moment.name}")
    return done


def champion_without_servers(project: Project, folder: Path) -> str:
    """The digest of the model that becomes champion where nothing is killed and nothing is shared: the same commit, by itself."""
    shutil.copytree(project.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".recompress", ".prefect", "reports", "evidence", "keys"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in project.of_hub.items():
            patch.setenv(name, value)
        outcome = run(folder, "run", RECIPE)
    return str(next(one["model_sha256"] for one in outcome["evaluations"] if one["model"] == outcome["promotion"]["model"]))
