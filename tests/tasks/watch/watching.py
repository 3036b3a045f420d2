"""A project that is looked at, and runs that are only counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recompress.ledger import Ledger
from recompress.watch.decide import Due
from recompress.watch.settings import WatchSettings
from tasks.watch.carry_out import Carried
from tasks.watch.looked import Looked
from tasks.watch.watcher import Watcher
from tests.tasks.watch.hubs import NAME, Repository, a_hub, client_asks, first_commit
from tests.tasks.watch.small_project import make_small_project

RECIPE = Path("recipes/toy.yaml")


NOW = WatchSettings(settle="0s")


WHOLE: Callable[[Path, Any], bool] = lambda *_: True  # noqa: E731
"""Every step of a run would be found."""


class Runs:
    """Runs that are only counted. Each ends as the test says."""

    def __init__(self) -> None:
        self.made: list[Due] = []
        self.code = 0
        self.during: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def __call__(self, root: Path, plan: Any, due: Due, mode: str, *rest: Any) -> Carried:
        with self._lock:
            self.made.append(due)
        self.during()
        return Carried(due.key, "counted", self.code, superseded=tuple(due.superseded), moved_pins=bool(due.moved) and mode == "auto")


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    held = first_commit()
    with a_hub(held) as address, client_asks(address, monkeypatch.setattr):
        yield held


@pytest.fixture
def project(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pinned to the repository's first commit, and run once before anybody watched."""
    monkeypatch.setenv("RECOMPRESS_ACTOR", "watcher")
    monkeypatch.delenv("RECOMPRESS_LEDGER", raising=False)
    root = make_small_project(tmp_path / "project", model=NAME, revision=repository.head.id, sha256="a" * 64)
    Ledger(root / "ledger" / "ledger.db").append("policy-recorded", {"recipe": "toy", "policy_sha256": "0" * 64}, actor="somebody")
    return root


def look(project: Path, runs: Runs, settings: WatchSettings = NOW) -> Looked:
    return Watcher(project, settings, lambda _: None, runs, WHOLE).look(RECIPE)


def look_later(project: Path, runs: Runs, settings: WatchSettings = NOW, **later: float) -> Looked:
    """A look on a machine whose clock says that it is so much later."""

    class Later(Watcher):
        @property
        def ledger(self) -> Ledger:
            return Ledger(project / "ledger" / "ledger.db", clock=lambda: datetime.now(UTC) + timedelta(**later))

    return Later(project, settings, lambda _: None, runs, WHOLE).look(RECIPE)


def kinds(project: Path) -> list[str]:
    return [entry.kind for entry in Ledger(project / "ledger" / "ledger.db").entries()]


def replace_settle(settle: str) -> WatchSettings:
    return WatchSettings(settle=settle)


def RECIPE_PIN(recipe: Path) -> str:  # noqa: N802
    return recipe.read_text().partition("revision: ")[2][:40]
