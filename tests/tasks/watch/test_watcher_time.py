"""Looks over time: what settles and what does not, whose clock counts, and that somebody looked at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recompress.ledger import Ledger
from recompress.watch.silence import silences
from tests.tasks.watch.hubs import NAME, Repository
from tests.tasks.watch.watching import Runs, kinds, look, look_later, replace_settle


def test_nothing_new_starts_nothing_and_says_so_once_a_day(project: Path) -> None:
    runs, before = Runs(), len(kinds(project))
    assert look(project, runs).exit_code == 0
    first = kinds(project)[before:]
    assert first.count("source-seen") == 6
    assert look(project, runs).text() == "toy: looked, nothing new"
    assert (kinds(project)[before:], runs.made) == (first, [])

    for hours, more in ((20, 0), (24, 1), (30, 0), (48, 1)):
        before = len(kinds(project))
        look_later(project, runs, hours=hours)
        assert kinds(project)[before:] == ["watch-looked"] * more, hours


def test_after_three_days_and_four_commits_one_look_makes_one_run_for_the_newest_and_names_the_others(project: Path, repository: Repository) -> None:
    runs = Runs()
    look(project, runs)
    missed = [repository.commit(f"weights {i}".encode(), age=timedelta(hours=70 - 20 * i)) for i in range(4)]
    look(project, runs, replace_settle("30m"))
    assert runs.made == []
    looked = look_later(project, runs, replace_settle("30m"), minutes=31)
    assert len(runs.made) == 1
    assert runs.made[0].moved[0].revision == missed[-1].id
    assert looked.runs[0].superseded == tuple(f"{NAME}@{commit.id}" for commit in missed[:-1])
    [claim] = Ledger(project / "ledger" / "ledger.db").entries("watch-run", key=runs.made[0].key)
    assert claim.body["superseded"] == list(looked.runs[0].superseded)
    look_later(project, runs, replace_settle("30m"), minutes=32)
    assert len(runs.made) == 1


def test_what_goes_back_within_the_settle_time_ends_in_nothing(project: Path, repository: Repository) -> None:
    runs, settings = Runs(), replace_settle("30m")
    look(project, runs, settings)
    repository.commit(b"second weights")
    looked = look(project, runs, settings)
    [(sight, until)] = looked.decision.settling
    assert (sight.source.name, 29 * 60 < (until - datetime.now(UTC)).total_seconds() < 31 * 60) == ("base", True)
    repository.commit(b"first weights")
    look_later(project, runs, settings, minutes=10)
    look_later(project, runs, settings, minutes=50)
    assert runs.made == []
    repository.commit(b"third weights")
    look_later(project, runs, settings, minutes=51)
    repository.commit(b"third weights", read_me=b"other words")
    look_later(project, runs, settings, minutes=70)
    assert runs.made == []
    look_later(project, runs, settings, minutes=82)
    assert len(runs.made) == 1, "what has rested is run, and a commit that changes no weights does not disturb it"


@pytest.mark.parametrize("age", [timedelta(days=3), timedelta(days=-20_000)])
def test_the_date_that_a_commit_carries_says_nothing(project: Path, repository: Repository, age: timedelta) -> None:
    runs, settings = Runs(), replace_settle("30m")
    look(project, runs, settings)
    repository.commit(b"second weights", age=age)
    look(project, runs, settings)
    assert runs.made == []
    look_later(project, runs, settings, minutes=31)
    assert len(runs.made) == 1


def test_a_look_of_a_clock_that_was_ahead_hides_neither_the_looks_after_it_nor_their_end(project: Path, repository: Repository) -> None:
    runs, settings = Runs(), replace_settle("30m")
    look_later(project, runs, settings, days=3650)
    before = len(kinds(project))
    for day in range(4):
        look_later(project, runs, settings, days=day)
    assert kinds(project)[before:] == ["watch-looked"] * 4
    repository.commit(b"second weights")
    look_later(project, runs, settings, days=3650)
    look_later(project, runs, settings, days=4)
    look_later(project, runs, settings, days=4, minutes=31)
    assert len(runs.made) == 1, "nor does it keep what it saw from coming to rest"
    entries = Ledger(project / "ledger" / "ledger.db").entries()
    assert silences(entries, datetime.now(UTC) + timedelta(days=5)) == []
    [gap] = silences(entries, datetime.now(UTC) + timedelta(days=200))
    assert (gap.until, (datetime.now(UTC) + timedelta(days=5) - gap.since).days) == (None, 0)
