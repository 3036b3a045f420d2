"""SIGKILL at every named point of promotion, rollback, undoing and recovery; at random moments; and twice in a row.

Each point is killed four times here. A longer run:  RECOMPRESS_TEST_KILLS=50 python -m pytest tests/promotion/test_kill.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from recompress.errors import IntegrityError
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.ledger import Head, Ledger, verify
from recompress.promotion import CRASH_POINTS, HEAD_TAG, PLAN_TAG, Promoter, champion_by_ledger, present_champion, propose
from recompress.promotion.effects import UNDO_POINTS
from recompress.promotion.states import OPENERS, PLAN_KINDS, UNFINISHED, follow
from tests.children import Child
from tests.ledger.stores import new_database
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
KILLS = int(os.environ.get("RECOMPRESS_TEST_KILLS", "4"))
RECOVERY_POINTS = ("promotion:recovery-recorded", "promotion:move-recorded", "promotion:files-checked-again", "promotion:check-recorded", "promotion:committed")
Crash = Callable[[str], None]


ledger_at = cache(Ledger)


class Stage:
    """A ledger and a registry in a folder, with versions 1 and 2 promoted and candidate 3 ready."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where: Path | str = root / "ledger.db"
        self.candidate = root / "candidate 3"

    def promoter(self, crash: Crash = lambda name: None) -> Promoter:
        registry = FolderRegistry(self.root / "registry", crash_point=crash)
        return Promoter(ledger_at(self.where), registry, "ada", lock_timeout=10, crash_point=crash)

    def promote(self, crash: Crash = lambda name: None) -> None:
        promoter = self.promoter(crash)
        plan, verdict = make_plan(self.candidate, present_champion(promoter.registry, MODEL))
        if plan.expected is None or plan.expected.model_sha256 != plan.model_sha256:
            promoter.promote(promoter.propose(plan, verdict).digest, self.candidate)

    def roll_back(self, crash: Crash = lambda name: None) -> None:
        promoter = self.promoter(crash)
        if promoter.registry.champion(MODEL) != "1":
            promoter.rollback(MODEL, reason="too slow")

    def recover(self, crash: Crash = lambda name: None) -> None:
        self.promoter(crash).recover()


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a kill leaves the same behind there, and hundreds of runs need not wait for a disk."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def prepared(memory: Path) -> Path:
    return prepare(Stage(memory / "prepared")).root


def prepare(stage: Stage) -> Stage:
    for seed in (1, 2, 3):
        stage.candidate = model_directory(stage.root / f"candidate {seed}", seed)
        if seed < 3:
            stage.promote()
    return stage


@pytest.fixture
def stages(prepared: Path, memory: Path) -> Callable[[], Stage]:
    def new() -> Stage:
        shutil.rmtree(memory / "stage", ignore_errors=True)
        return Stage(shutil.copytree(prepared, memory / "stage"))

    return new


def die_at(point: str) -> Crash:
    return lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None


def killed(work: Callable[[Crash], None], point: str) -> None:
    """Do some work in a process of its own, which must die at the point."""
    worker = Child(target=work, args=(die_at(point),))
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL, f"{point} was not passed (exit code {worker.exitcode})"


def check(stage: Stage) -> None:
    """What must hold after recovery, whatever happened before."""
    promoter = stage.promoter()
    promoter.recover()
    assert promoter.recover() is None
    ledger, registry = promoter.ledger, promoter.registry
    assert isinstance(registry, FolderRegistry)
    champion = registry.champion(MODEL)
    assert champion in registry.versions(MODEL)
    assert champion == champion_by_ledger(ledger, MODEL)
    tags = [registry.tags(MODEL, version) or {} for version in registry.versions(MODEL)]
    anchors = [Head.parse(tag[HEAD_TAG]) for tag in tags]
    entries = ledger.entries()
    verify(entries, anchors=anchors)
    committed = [entry for entry in entries if entry.kind == "promotion-committed"]
    assert max(anchor.sequence for anchor in anchors) >= committed[-1].sequence
    assert len({entry.body["plan"] for entry in committed}) == len(committed)
    assert len({tag[PLAN_TAG] for tag in tags}) == len(tags)
    for digest in {entry.body["plan"] for entry in entries if entry.kind in OPENERS}:
        progress = follow(entry for entry in entries if entry.kind in PLAN_KINDS and entry.body["plan"] == digest)
        assert progress is not None
        assert progress.state not in UNFINISHED


@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if p.startswith("promotion:")] + ["registry:half-uploaded", "registry:uploaded"])
def test_a_promotion_killed_anywhere_is_finished_by_the_next(stages: Callable[[], Stage], point: str) -> None:
    for _ in range(KILLS):
        stage = stages()
        killed(stage.promote, point)
        check(stage)
        stage.promote()
        registry = stage.promoter().registry
        assert isinstance(registry, FolderRegistry)
        assert registry.champion(MODEL) == "3"
        assert registry.moves == ["1", "2", "3"]


@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if p.startswith("rollback:")])
def test_a_rollback_killed_anywhere_is_finished_by_the_next(stages: Callable[[], Stage], point: str) -> None:
    for _ in range(KILLS):
        stage = stages()
        killed(stage.roll_back, point)
        check(stage)
        stage.roll_back()
        registry = stage.promoter().registry
        assert isinstance(registry, FolderRegistry)
        assert registry.champion(MODEL) == "1"
        assert registry.moves == ["1", "2", "1"]
        assert len(stage.promoter().ledger.entries("rollback")) == 1


@pytest.mark.parametrize("point", ["lock-taken", "intent-written", "alias-moved", "committed"])
def test_a_promotion_killed_over_postgresql_is_finished_by_the_next(tmp_path: Path, point: str) -> None:
    stage = Stage(tmp_path)
    stage.where = new_database()
    prepare(stage)
    killed(stage.promote, f"promotion:{point}")
    check(stage)
    stage.promote()
    registry = stage.promoter().registry
    assert isinstance(registry, FolderRegistry)
    assert registry.moves == ["1", "2", "3"]


def harm_and_die_at(stage: Stage, version: str, point: str) -> Crash:
    """Somebody changes the files between the check and the move; the process dies while it moves the alias back."""

    def crash(name: str) -> None:
        if name.endswith(":alias-moved"):
            (stage.root / "registry" / MODEL / version / MODEL_FOLDER / "config.json").write_text("{}")
        die_at(point)(name)

    return crash


@pytest.mark.parametrize("point", UNDO_POINTS)
def test_an_undoing_killed_anywhere_is_finished_by_the_next(stages: Callable[[], Stage], point: str) -> None:
    version = "3" if point.startswith("promotion:") else "1"
    for _ in range(KILLS):
        stage = stages()
        work = stage.promote if version == "3" else stage.roll_back
        worker = Child(target=work, args=(harm_and_die_at(stage, version, point),))
        worker.start()
        worker.join(30)
        assert worker.exitcode == -signal.SIGKILL
        check(stage)
        assert stage.promoter().registry.champion(MODEL) == "2"
        if version == "3":
            work()
        else:
            with pytest.raises(IntegrityError, match=r"config\.json"):
                work()
        assert stage.promoter().registry.champion(MODEL) == ("4" if version == "3" else "2")


@pytest.mark.parametrize("again", RECOVERY_POINTS)
def test_a_recovery_that_is_killed_too_is_taken_up_again(stages: Callable[[], Stage], again: str) -> None:
    for point in ("promotion:alias-moved", "promotion:move-recorded"):
        if (point, again) == ("promotion:move-recorded", "promotion:move-recorded"):
            continue
        stage = stages()
        killed(stage.promote, point)
        killed(stage.recover, again)
        check(stage)
        stage.promote()
        registry = stage.promoter().registry
        assert isinstance(registry, FolderRegistry)
        assert registry.moves == ["1", "2", "3"]


def test_a_recovery_that_is_killed_between_its_record_and_its_effect(stages: Callable[[], Stage]) -> None:
    stage = stages()
    killed(stage.promote, "promotion:intent-written")
    killed(stage.recover, "promotion:recovery-recorded")
    check(stage)
    [entry] = stage.promoter().ledger.entries("recovery")[-1:]
    assert (entry.body["action"], entry.body["state"]) == ("withdraw", "intent")


def test_an_alias_that_somebody_moves_while_a_promotion_is_cut_off(stages: Callable[[], Stage]) -> None:
    for point in ("intent-written", "alias-moved", "move-recorded", "check-recorded"):
        stage = stages()
        killed(stage.promote, f"promotion:{point}")
        FolderRegistry(stage.root / "registry").set_champion(MODEL, "1")
        check(stage)
        ledger = stage.promoter().ledger
        assert ledger.last("promotion-refused").body["reason"] == "alias-moved-outside"  # type: ignore[union-attr]
        assert ledger.last("alias-moved-outside").body["registry"] == "1"  # type: ignore[union-attr]
        stage.promote()
        check(stage)


def test_a_champion_that_was_deleted_while_the_alias_should_go_back_to_it(stages: Callable[[], Stage]) -> None:
    """No champion is better than a bad one, and nothing may be stuck."""
    stage = stages()
    worker = Child(target=stage.promote, args=(harm_and_die_at(stage, "3", "promotion:undo-written"),))
    worker.start()
    worker.join(30)
    shutil.rmtree(stage.root / "registry" / MODEL / "2")
    promoter = stage.promoter()
    promoter.recover()
    assert promoter.registry.champion(MODEL) is None
    assert promoter.recover() is None
    promoter.ledger.verify()


def test_kills_at_random_moments(stages: Callable[[], Stage]) -> None:
    draw = random.Random(0)
    for i in range(2 * KILLS):
        stage = stages()
        work = stage.promote if i % 2 else stage.roll_back
        worker = Child(target=work)
        worker.start()
        time.sleep(draw.uniform(0, 0.12))
        worker.kill()
        worker.join(30)
        check(stage)
        work()
        assert stage.promoter().registry.champion(MODEL) == ("3" if i % 2 else "1")


def test_proposals_that_are_cut_off_are_found_again(stages: Callable[[], Stage]) -> None:
    stage = stages()
    ledger = stage.promoter().ledger
    plan, _ = make_plan(stage.candidate, present_champion(stage.promoter().registry, MODEL))
    assert propose(ledger, plan).digest == propose(ledger, plan).digest
