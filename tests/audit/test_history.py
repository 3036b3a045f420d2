"""Who was champion when, and what happened, from records with times that are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recompress.audit import log_lines, parse_time, reigns, who_was
from recompress.audit.history import check_model
from recompress.audit.trace import find_plan
from recompress.errors import InputError, IntegrityError, StorageError
from recompress.records import ApprovalRule
from tests.evidence.stories import Project
from tests.promotion.conftest import Clock
from tests.promotion.stage import MODEL

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Version 1 from the 20th, 12:00; version 2 a day later, approved by bob; back to 1 a day later; version 2 by hand, found a day after that."""
    clock = Clock()
    project = Project(tmp_path, clock)
    project.promote(1)
    clock.wait(24)
    project.promote(2, ApprovalRule(required=True))
    clock.wait(24)
    project.promoter.rollback(MODEL, reason="slow on phones")
    clock.wait(24)
    project.registry.set_champion(MODEL, "2")
    project.promoter.watch(MODEL)
    return project


def versions(project: Project, begin: str, end: str | None = None) -> list[str | None]:
    moment = datetime.fromisoformat(begin)
    return [reign.version for reign in who_was(project.ledger.entries(), MODEL, moment, datetime.fromisoformat(end) if end else moment)]


def test_reigns_follow_each_other_without_a_gap(project: Project) -> None:
    history = reigns(project.ledger.entries(), MODEL)
    assert [(reign.version, reign.how) for reign in history] == [("1", "promotion"), ("2", "promotion"), ("1", "rollback"), ("2", "outside")]
    assert all(before.until == after.since for before, after in zip(history, history[1:], strict=False))
    assert history[-1].until is None
    assert (history[1].approver, history[0].approver, history[1].candidate) == ("bob", "", "int8")


@pytest.mark.parametrize(
    ("at", "version"),
    [
        ("2026-11-20T11:59:59+00:00", []),
        ("2026-11-20T12:00:00+00:00", ["1"]),
        ("2026-11-21T11:59:59+00:00", ["1"]),
        ("2026-11-21T12:00:00+00:00", ["2"]),
        ("2026-11-22T15:00:00+03:00", ["1"]),
        ("2026-11-24T00:00:00+00:00", ["2"]),
    ],
)
def test_who_was_champion_at_a_moment(project: Project, at: str, version: list[str]) -> None:
    assert versions(project, at) == version


def test_a_day_shows_everybody_who_was_champion_in_it(project: Project) -> None:
    assert versions(project, "2026-11-21T00:00:00+00:00", "2026-11-21T23:59:59+00:00") == ["1", "2"]
    assert versions(project, "2026-11-01T00:00:00+00:00", "2026-11-30T00:00:00+00:00") == ["1", "2", "1", "2"]


def test_a_promotion_that_was_undone_was_champion_for_that_moment(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.promote(1)
    plan = project.propose(2)

    def spoil(name: str) -> None:
        if name == "promotion:alias-moved":
            (project.version("2") / "artifacts" / "model" / "config.json").write_text("{}")

    object.__setattr__(project.promoter, "crash_point", spoil)
    with pytest.raises(Exception, match="moved back"):
        project.promoter.promote(plan, tmp_path / "model 2")
    assert [(reign.version, reign.how) for reign in reigns(project.ledger.entries(), MODEL)] == [("1", "promotion"), ("2", "promotion"), ("1", "undone")]


@pytest.mark.parametrize("cut_at", ["alias-moved", "move-recorded", "check-recorded"])
def test_a_version_that_is_being_promoted_is_no_champion_without_the_ledger(tmp_path: Path, cut_at: str) -> None:
    """Its files are read back after the alias has moved; over a network that takes a while, and somebody may ask meanwhile."""

    class Cut(BaseException):
        pass

    project = Project(tmp_path)
    project.promote(1)
    plan = project.propose(2)

    def cut(name: str) -> None:
        if name == f"promotion:{cut_at}":
            raise Cut

    object.__setattr__(project.promoter, "crash_point", cut)
    with pytest.raises(Cut):
        project.promoter.promote(plan, tmp_path / "model 2")
    with pytest.raises(StorageError, match="version 2 of .* is being promoted just now, or that was cut off; ask again in a while"):
        find_plan(project.ledger.entries(), MODEL, "2", by_alias=True)
    with pytest.raises(IntegrityError, match="has the alias champion, but this ledger promoted no such version"):
        find_plan(project.ledger.entries(), MODEL, "7", by_alias=True)


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026-11-17", "2026-11-17T00:00:00+00:00", "2026-11-17T23:59:59.999999+00:00"),
        ("2026-11-17T14:30", "2026-11-17T14:30:00+00:00", "2026-11-17T14:30:00+00:00"),
        (" 2026-11-17T14:30+03:00 ", "2026-11-17T11:30:00+00:00", "2026-11-17T11:30:00+00:00"),
        ("2026-11-17T14:30:05Z", "2026-11-17T14:30:05+00:00", "2026-11-17T14:30:05+00:00"),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, begin: str, end: str) -> None:
    assert parse_time(text, NOW) == (datetime.fromisoformat(begin), datetime.fromisoformat(end))


@pytest.mark.parametrize(
    "text", ["last tuesday", "", "2026-13-01", "17.11.2026", "2026-11-17T25:00", "20261117", "2026-W47", "0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no time; write 2026-11-17"):
        parse_time(text, NOW)


def test_the_future_is_refused() -> None:
    with pytest.raises(InputError, match="is still to come"):
        parse_time((NOW + timedelta(seconds=1)).isoformat(), NOW)


def test_the_log_has_a_line_for_each_record(project: Project) -> None:
    entries = project.ledger.entries()
    rows = log_lines(entries)
    assert [row["record"] for row in rows] == list(range(1, len(entries) + 1))
    assert all(row["told"] and "\n" not in row["told"] for row in rows)
    assert any("slow on phones" in row["told"] for row in rows)
    assert not any("signature" in row["told"] for row in rows)


def test_the_log_of_one_model_leaves_the_others_out(project: Project) -> None:
    mine, champions = len(log_lines(project.ledger.entries(), MODEL)), reigns(project.ledger.entries(), MODEL)
    project.ledger.append("alias-moved-outside", {"model": "other", "ledger": None, "registry": "9"}, actor="ada")
    project.ledger.append("variant-measured", {"recipe": "tiny", "model": "int8"}, actor="ada")
    project.ledger.append("variant-measured", {"recipe": "huge", "model": "int8"}, actor="ada")
    assert len(log_lines(project.ledger.entries(), MODEL)) == mine + 1, "the recipe that made it belongs to it"
    assert reigns(project.ledger.entries(), MODEL) == champions


def test_an_unknown_model_is_named_with_the_nearest(project: Project) -> None:
    check_model(project.ledger.entries(), MODEL)
    with pytest.raises(InputError, match="knows no model 'nerr'; did you mean 'ner'"):
        check_model(project.ledger.entries(), "nerr")
    with pytest.raises(InputError, match="nothing was ever proposed"):
        check_model([], "ner")
