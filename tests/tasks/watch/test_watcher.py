"""Looks that lead to runs, or do not: one run for one change, however many look; nothing on a guess; and what was cut off is taken up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recompress.ledger import Ledger
from recompress.watch.decide import Due
from recompress.watch.pins import changed_lines
from recompress.watch.settings import WatchSettings
from tasks.running.lock import _refusal
from tasks.watch.carry_out import Carried
from tasks.watch.watcher import Looked, Watcher
from tests.tasks.watch.hubs import NAME, Repository, a_hub, client_asks, first_commit
from tests.tasks.watch.small_project import make_small_project

RECIPE = Path("recipes/toy.yaml")
NOW = WatchSettings(settle="0s")


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
    return Watcher(project, settings, lambda _: None, runs).look(RECIPE)


def kinds(project: Path) -> list[str]:
    return [entry.kind for entry in Ledger(project / "ledger" / "ledger.db").entries()]


def test_nothing_new_starts_nothing_and_says_so_once_a_day(project: Path) -> None:
    runs, before = Runs(), len(kinds(project))
    assert look(project, runs).exit_code == 0
    first = kinds(project)[before:]
    assert first.count("source-seen") == 6
    assert look(project, runs).text() == "toy: looked, nothing new"
    assert (kinds(project)[before:], runs.made) == (first, [])

    now = datetime.now(UTC)

    class Later(Watcher):
        @property
        def ledger(self) -> Ledger:
            return Ledger(project / "ledger" / "ledger.db", clock=lambda: now)

    for hours, more in ((20, 0), (24, 1), (30, 0), (48, 1)):
        before, now = len(kinds(project)), datetime.now(UTC) + timedelta(hours=hours)
        Later(project, NOW, lambda _: None, runs).look(RECIPE)
        assert kinds(project)[before:] == ["watch-looked"] * more, hours


def test_new_weights_are_proposed_once_and_a_read_me_starts_nothing(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"first weights", read_me=b"other words")
    look(project, runs)
    assert runs.made == []
    seen = Ledger(project / "ledger" / "ledger.db").entries("source-seen", source="base")
    assert [(entry.body["revision"], entry.body["relevant"]) for entry in seen][1:] == [(repository.head.id, False)]
    repository.commit(b"second weights")
    for _ in range(3):
        look(project, runs)
    [due] = runs.made
    assert due.moved[0].pins["revision"] == repository.head.id


def test_after_three_days_and_four_commits_one_look_makes_one_run_for_the_newest_and_names_the_others(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    missed = [repository.commit(f"weights {i}".encode(), age=timedelta(hours=70 - 20 * i)) for i in range(4)]
    looked = look(project, runs, replace_settle("30m"))
    assert len(runs.made) == 1
    assert runs.made[0].moved[0].revision == missed[-1].id
    assert looked.runs[0].superseded == tuple(f"{NAME}@{commit.id}" for commit in missed[:-1])
    [claim] = Ledger(project / "ledger" / "ledger.db").entries("watch-run", key=runs.made[0].key)
    assert claim.body["superseded"] == list(looked.runs[0].superseded)
    look(project, runs, replace_settle("30m"))
    assert len(runs.made) == 1


def replace_settle(settle: str) -> WatchSettings:
    return WatchSettings(settle=settle)


def test_what_goes_back_within_the_settle_time_ends_in_nothing(project: Path, repository: Repository) -> None:
    runs, settings = Runs(), replace_settle("30m")
    look(project, runs, settings)
    repository.commit(b"second weights", age=timedelta(minutes=20))
    looked = look(project, runs, settings)
    [(sight, until)] = looked.decision.settling
    assert (sight.source.name, 9 * 60 < (until - datetime.now(UTC)).total_seconds() < 11 * 60) == ("base", True)
    repository.commit(b"first weights", age=timedelta(minutes=10))
    look(project, runs, settings)
    repository.commits[-1].age = timedelta(minutes=50)
    look(project, runs, settings)
    assert runs.made == []
    repository.commit(b"third weights", age=timedelta(minutes=31))
    look(project, runs, settings)
    assert len(runs.made) == 1, "what has rested is run"


def test_fifty_watchers_at_once_make_one_run(project: Path, repository: Repository, where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOMPRESS_LEDGER", str(where))
    Ledger(where).append("policy-recorded", {"recipe": "toy", "policy_sha256": "0" * 64}, actor="somebody")
    runs, errors = Runs(), list[BaseException]()
    look(project, runs)
    repository.commit(b"second weights")
    together = threading.Barrier(50)

    def one() -> None:
        try:
            together.wait()
            look(project, runs)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(runs.made) == 1
    ledger = Ledger(where)
    claims = [entry for entry in ledger.entries("watch-run") if entry.body["proposal"]]
    assert [claim.body["key"] for claim in claims] == [runs.made[0].key]
    assert len(ledger.entries("source-seen", source="base")) == 2
    ledger.verify()


@pytest.mark.parametrize("refusal", [(401, {}), (404, {"X-Error-Code": "RepoNotFound"}), (429, {"RateLimit": '"api";r=0;t=900'}), (503, {})])
def test_what_is_not_visible_leaves_one_record_is_left_alone_and_ends_with_its_own_code(
    project: Path, repository: Repository, refusal: tuple[int, dict[str, str]]
) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    repository.refusal = refusal
    assert look(project, runs).exit_code == 7
    asked = len(repository.asked)
    looked = look(project, runs)
    assert (looked.exit_code, len(repository.asked)) == (7, asked), "it is left alone"
    assert "the champion stays" in looked.text()
    assert kinds(project).count("source-not-visible") == 1
    assert runs.made == []
    repository.refusal = None
    leases = Ledger(project / "ledger" / "ledger.db").leases
    assert leases.paused(f"look at {NAME}") > 890
    leases.resume(f"look at {NAME}")
    assert look(project, runs).exit_code == 0
    assert len(runs.made) == 1


@pytest.mark.parametrize("what", ["licence", "history"])
def test_a_licence_and_a_rewritten_history_wait_for_a_person(project: Path, repository: Repository, what: str) -> None:
    runs = Runs()
    look(project, runs)
    if what == "history":
        repository.commits.clear()
    repository.commit(b"second weights", licence="other" if what == "licence" else "apache-2.0")
    for _ in range(2):
        looked = look(project, runs)
        assert looked.exit_code == 6
        assert "waits for a person" in looked.text()
    assert (kinds(project).count("source-waits"), runs.made) == (1, [])
    recipe = project / RECIPE
    recipe.write_text(recipe.read_text().replace(RECIPE_PIN(recipe), repository.head.id))
    assert look(project, runs).exit_code == 0, "whoever moves the pin by hand has looked at it"
    assert len(runs.made) == 1


def RECIPE_PIN(recipe: Path) -> str:  # noqa: N802
    return recipe.read_text().partition("revision: ")[2][:40]


def test_a_recipe_that_was_never_run_is_run_and_an_edit_is_run_as_it_stands(project: Path, repository: Repository) -> None:
    (project / "ledger" / "ledger.db").unlink()
    runs = Runs()
    look(project, runs)
    assert [due.why for due in runs.made] == [("it was never run",)]
    recipe = project / RECIPE
    first = recipe.read_text()
    recipe.write_text(first.replace("epochs: 1", "epochs: 2"))
    look(project, runs)
    look(project, runs)
    assert len(runs.made) == 2
    assert "recipe changed" in runs.made[1].why[0]
    recipe.write_text(first)
    look(project, runs)
    look(project, runs)
    assert len(runs.made) == 3, "going back is a change as well"


def test_a_merged_proposal_is_run_as_it_stands_and_an_automatic_one_is_not_run_twice(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    look(project, runs)
    recipe = project / RECIPE
    merged = recipe.read_text().replace(RECIPE_PIN(recipe), repository.head.id)
    recipe.write_text(merged)
    look(project, runs)
    look(project, runs)
    assert [bool(due.moved) for due in runs.made] == [True, False]
    repository.commit(b"third weights")
    auto = WatchSettings(settle="0s", recipes={"recipes/toy.yaml": {"mode": "auto"}})  # type: ignore[dict-item]
    look(project, runs, auto)
    recipe.write_text(merged.replace(RECIPE_PIN(recipe), repository.head.id))
    look(project, runs, auto)
    assert [bool(due.moved) for due in runs.made] == [True, False, True]


def test_a_run_that_failed_is_tried_again_later_and_one_that_was_refused_is_not(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    runs.code = 1
    assert look(project, runs).exit_code == 1
    assert look(project, runs).exit_code == 0, "not before its pause is over"
    ledger = Ledger(project / "ledger" / "ledger.db")
    ledger.leases.resume(f"run {runs.made[0].key}")
    runs.code = 4
    assert look(project, runs).exit_code == 4
    look(project, runs)
    assert [due.key for due in runs.made] == [runs.made[0].key] * 2


def test_a_run_waits_while_somebody_runs_the_recipe_and_that_is_no_failure(project: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    look(project, Runs())
    repository.commit(b"second weights")
    busy = {"error": str(_refusal("toy", None)), "kind": "StorageError", "exit_code": 1}
    monkeypatch.setattr("tasks.watch.carry_out._run", lambda *_: (1, busy))
    watcher = Watcher(project, NOW, lambda _: None)
    looked = watcher.look(RECIPE)
    assert (looked.exit_code, len(looked.elsewhere), kinds(project).count("watch-run-ended")) == (0, 1, 1), "the one is where watching began"
    monkeypatch.setattr("tasks.watch.carry_out._run", lambda *_: (4, {"summary": "Nothing was promoted.", "promotion": {}}))
    [run] = watcher.look(RECIPE).runs
    assert (run.outcome, run.key) == ("refused", looked.elsewhere[0])
    recipe = project / ".recompress" / "watch" / run.key[:16] / "toy.yaml"
    changed = changed_lines((project / RECIPE).read_text(), recipe.read_text())
    assert (len(changed), repository.head.id in changed[1]) == (2, True)


def test_a_run_whose_watcher_is_gone_is_taken_up_when_its_lease_runs_out(project: Path, repository: Repository) -> None:
    class Killed(BaseException):
        pass

    runs, settings = Runs(), WatchSettings(settle="0s", lease="1s")
    look(project, runs, settings)
    repository.commit(b"second weights")
    ledger = Ledger(project / "ledger" / "ledger.db")

    def kill() -> None:
        raise Killed

    runs.during = kill
    given_back: list[str] = []
    watcher = Watcher(project, settings, lambda _: None, runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recompress.ledger.leases.Leases.give_back", lambda *_: given_back.append(""))  # who is killed gives nothing back
        with pytest.raises(Killed):
            watcher.look(RECIPE)
    assert (len(given_back), ledger.leases.holder("watch toy") is None) == (1, False)
    runs.during = lambda: None
    assert look(project, runs, settings).elsewhere == [runs.made[0].key]
    assert len(runs.made) == 1
    threading.Event().wait(1.1)
    look(project, runs, settings)
    assert [due.key for due in runs.made] == [runs.made[0].key] * 2
    assert ledger.leases.holder("watch toy") is None
    look(project, runs, settings)
    assert len(runs.made) == 2


def test_data_that_changed_here_waits_and_is_never_accepted(project: Path) -> None:
    runs = Runs()
    look(project, runs)
    (project / "raw" / "toy" / "train.jsonl").write_text("{}\n")
    lock = (project / "dvc.lock").read_bytes()
    looked = look(project, runs)
    assert (looked.exit_code, runs.made) == (6, [])
    assert "raw/toy was changed" in looked.text()
    assert (project / "dvc.lock").read_bytes() == lock


def test_the_key_is_the_digest_of_recipe_and_sources(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    repository.commit(b"second weights")
    look(project, runs)
    [due] = runs.made
    assert due.key == replace(due, why=("told otherwise",)).key
    assert due.key != replace(due, moved=(replace(due.moved[0], digest="f" * 64),)).key
    assert due.key != replace(due, sources={**due.sources, "recipe": "f" * 64}).key
