"""Before anything is judged against a champion: it is the one that the ledger promoted, its files are what they were, and nothing is left half-done."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from recompress.audit.history import reigns
from recompress.errors import IntegrityError
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.ledger import Ledger, LedgerBroken
from recompress.promotion import Promoter, approve, present_champion, reject
from recompress.records import ApprovalRule
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory


class Killed(BaseException):
    """What a kill does to the process, without the process."""


def promote_one(promoter: Promoter, folder: Path) -> None:
    directory = model_directory(folder / "model", 1)
    promoter.promote(promoter.propose(*make_plan(directory, None)).digest, directory)


def tamper(ledger: Ledger) -> None:
    with ledger._database.writing() as connection:
        connection.execute(text("DROP TRIGGER recompress_no_update"))
        connection.execute(text("UPDATE recompress_ledger SET actor = 'mallory' WHERE sequence = 2"))


def test_a_sound_champion_is_left_alone(promoter: Promoter, ledger: Ledger, tmp_path: Path) -> None:
    promoter.settle(MODEL)
    promote_one(promoter, tmp_path)
    head = ledger.head()
    promoter.settle(MODEL)
    assert ledger.head() == head


def test_a_champion_whose_files_were_changed_is_no_champion_to_judge_against(promoter: Promoter, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_one(promoter, tmp_path)
    plan = make_plan(tmp_path / "model", None)
    (registry.fetch(MODEL, "1") / MODEL_FOLDER / "model.safetensors").write_bytes(b"other")
    with pytest.raises(IntegrityError):
        promoter.settle(MODEL)
    with pytest.raises(IntegrityError):
        promoter.promote(promoter.propose(*plan).digest, tmp_path / "model")


def test_a_forged_version_is_refused_recorded_and_put_right_by_a_rollback(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_one(promoter, tmp_path)
    tags = registry.tags(MODEL, "1") or {}
    registry.set_champion(MODEL, registry.create_version(MODEL, model_directory(tmp_path / "forged", 2), tags))
    for _ in range(2):
        with pytest.raises(IntegrityError, match="version 2 of .* is champion, but this ledger promoted no such version"):
            promoter.settle(MODEL)
    assert len(ledger.entries("alias-moved-outside", model=MODEL)) == 1
    assert promoter.rollback(MODEL, to="1", reason="somebody forged a version").version == "1"
    promoter.settle(MODEL)


def test_an_alias_that_is_gone_is_said_once_and_recorded(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_one(promoter, tmp_path)
    registry.set_champion(MODEL, None)
    with pytest.raises(IntegrityError, match="nothing has the alias champion of ner, but by the ledger it was version 1; recompress rollback ner --to 1"):
        promoter.settle(MODEL)
    assert [entry.body["registry"] for entry in ledger.entries("alias-moved-outside", model=MODEL)] == [None]
    promoter.settle(MODEL)
    assert promoter.rollback(MODEL, to="1", reason="somebody took the alias away").version == "1"
    promoter.settle(MODEL)


def test_a_changed_ledger_settles_nothing_and_takes_no_decision(promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    promote_one(promoter, tmp_path)
    directory = model_directory(tmp_path / "next", 3)
    waiting = promoter.propose(*make_plan(directory, present_champion(registry, MODEL), rule=ApprovalRule(required=True)))
    tamper(ledger)
    head = ledger.head()
    with pytest.raises(LedgerBroken, match="record 2"):
        promoter.settle(MODEL)
    with pytest.raises(LedgerBroken, match="record 2"):
        approve(ledger, waiting.digest, actor="bob")
    with pytest.raises(LedgerBroken, match="record 2"):
        reject(ledger, waiting.digest, actor="bob", reason="it is slow")
    assert ledger.head() == head


def test_what_a_killed_promotion_left_open_is_finished_first(ledger: Ledger, registry: FolderRegistry, tmp_path: Path) -> None:
    def die(point: str) -> None:
        if point == "promotion:alias-moved":
            raise Killed

    with pytest.raises(Killed):
        promote_one(Promoter(ledger, registry, "ada", lock_timeout=5, crash_point=die), tmp_path)
    assert not ledger.entries("promotion-committed")
    Promoter(ledger, registry, "ada", lock_timeout=5).settle(MODEL)
    assert len(ledger.entries("promotion-committed", model=MODEL)) == 1
    assert registry.moves == ["1"]


@pytest.mark.parametrize("at", ["promotion:move-recorded", "promotion:check-recorded"])
def test_an_alias_put_back_by_hand_while_a_promotion_was_cut_off_ends_the_reign_that_the_ledger_tells_of(
    promoter: Promoter, ledger: Ledger, registry: FolderRegistry, tmp_path: Path, at: str
) -> None:
    promote_one(promoter, tmp_path)
    directory = model_directory(tmp_path / "next", 3)
    plan = promoter.propose(*make_plan(directory, present_champion(registry, MODEL)))

    def kill(name: str) -> None:
        if name == at:
            raise Killed

    with pytest.raises(Killed):
        Promoter(ledger, registry, "ada", crash_point=kill).promote(plan.digest, directory)
    registry.set_champion(MODEL, "1")
    promoter.settle(MODEL)
    outside = ledger.last("alias-moved-outside", model=MODEL)
    assert outside is not None
    assert outside.body == {"model": MODEL, "ledger": "2", "registry": "1"}
    assert [(reign.version, reign.until is None) for reign in reigns(ledger.entries(), MODEL)] == [("1", False), ("2", False), ("1", True)]
    assert promoter.promote(promoter.propose(*make_plan(directory, present_champion(registry, MODEL))).digest, directory).version == "3"
    assert [(reign.version, reign.until is None) for reign in reigns(ledger.entries(), MODEL)][-1] == ("3", True)
