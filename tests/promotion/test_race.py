"""Fifty promoters from separate processes: for each expected champion exactly one wins, and every other is told why not."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from recompress.errors import StorageError
from recompress.ledger import Ledger
from recompress.promotion import Promoter, PromotionRefused, champion_by_ledger, present_champion, progress_of
from recompress.promotion.states import OPENERS
from recompress.records import ChampionRef
from tests.children import Child
from tests.ledger.stores import new_database
from tests.promotion.stage import MODEL, FolderRegistry, make_plan, model_directory

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
FORK = multiprocessing.get_context("fork")
PROMOTERS = 50


def race(where: Path | str, root: Path, number: int, expected: ChampionRef | None, start: object) -> None:
    directory = model_directory(root / f"candidate {number}", number)
    start.wait()  # type: ignore[attr-defined]
    promoter = Promoter(Ledger(where, timeout=120), FolderRegistry(root / "registry"), f"promoter {number}", lock_timeout=240)
    try:
        done = promoter.promote(promoter.propose(*make_plan(directory, expected)).digest, directory)
        outcome = {"version": done.version}
    except PromotionRefused as refusal:
        outcome = {"reason": refusal.reason}
    (root / f"outcome-{number}.json").write_text(json.dumps(outcome))


def run(where: Path | str, root: Path, numbers: range, expected: ChampionRef | None) -> tuple[list[str], Counter[str]]:
    """The versions that were promoted, and how often each reason was given."""
    start = FORK.Barrier(len(numbers))
    workers = [Child(target=race, args=(where, root, number, expected, start)) for number in numbers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(280)
    assert [worker.exitcode for worker in workers] == [0] * len(numbers)
    outcomes = [json.loads((root / f"outcome-{number}.json").read_text()) for number in numbers]
    return [o["version"] for o in outcomes if "version" in o], Counter(o["reason"] for o in outcomes if "reason" in o)


@pytest.mark.long
def test_of_fifty_promoters_exactly_one_wins_for_each_expected_champion(where: Path | str, tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    Ledger(where)
    won, lost = run(where, tmp_path, range(PROMOTERS), None)
    assert (won, lost) == (["1"], {"champion-changed": PROMOTERS - 1})
    won, lost = run(where, tmp_path, range(100, 108), present_champion(registry, MODEL))
    assert (won, lost) == (["2"], {"champion-changed": 7})
    assert registry.moves == ["1", "2"]
    assert registry.versions(MODEL) == ["1", "2"]
    ledger = Ledger(where)
    ledger.verify()
    assert champion_by_ledger(ledger, MODEL) == registry.champion(MODEL) == "2"
    states = Counter(progress_of(ledger, entry.body["plan"]).state for entry in ledger.entries(*OPENERS))
    assert states == {"committed": 2, "refused": PROMOTERS + 6}


def test_the_same_plan_from_many_processes_is_carried_out_once(where: Path | str, tmp_path: Path) -> None:
    """Two hosts run the same recipe at the same time."""
    Ledger(where)
    directory = model_directory(tmp_path / "candidate", 0)
    start = FORK.Barrier(6)
    workers = [Child(target=same, args=(where, tmp_path, directory, start)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert FolderRegistry(tmp_path / "registry").moves == ["1"]
    assert len(Ledger(where).entries("promotion-proposed")) == len(Ledger(where).entries("promotion-committed")) == 1


def same(where: Path | str, root: Path, directory: Path, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    promoter = Promoter(Ledger(where, timeout=60), FolderRegistry(root / "registry"), "ada")
    assert promoter.promote(promoter.propose(*make_plan(directory, None)).digest, directory).version == "1"


def test_a_promoter_that_lost_its_lock_moves_nothing(tmp_path: Path) -> None:
    """The connection to PostgreSQL breaks, and the lock with it: somebody else may hold it by now."""
    import psycopg

    url = new_database()

    def disconnect(name: str) -> None:
        if name == "promotion:intent-written":
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    directory = model_directory(tmp_path / "candidate", 0)
    registry = FolderRegistry(tmp_path / "registry")
    promoter = Promoter(Ledger(url), registry, "ada", crash_point=disconnect)
    digest = promoter.propose(*make_plan(directory, None)).digest
    with pytest.raises(StorageError, match="does not answer") as refusal:
        promoter.promote(digest, directory)
    assert "\n" not in str(refusal.value)
    assert registry.moves == []
    assert Promoter(Ledger(url), registry, "bob").promote(digest).version == "1"
    assert registry.moves == ["1"]
