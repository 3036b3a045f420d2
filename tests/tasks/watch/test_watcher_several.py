"""Several watchers, several recipes, and somebody who runs one by hand: one run for one change, and none is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from recompress.errors import InputError
from recompress.integrity.fingerprint import versions
from recompress.ledger import Ledger
from recompress.watch.pins import changed_lines
from recompress.watch.settings import WatchSettings
from tasks.running.lock import _refusal
from tasks.running.recompression import recompression
from tasks.watch.forecast import forecast
from tasks.watch.watcher import Watcher
from tests.tasks.watch.hubs import Repository
from tests.tasks.watch.watching import NOW, RECIPE, WHOLE, Runs, kinds, look


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


def test_watchers_with_other_packages_or_code_make_one_run_for_one_change(project: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, here = Runs(), versions()

    def look_with(**packages: str) -> None:
        monkeypatch.setattr("tasks.watch.look.versions", lambda: here | packages)
        look(project, runs)

    look(project, runs)
    for _ in range(4):
        look_with()
        look_with(gguf="0.0.1")
    assert len(runs.made) == 1, "such packages had never been run with"
    records = len(kinds(project))
    recipe = project / RECIPE
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 2"))
    for _ in range(2):
        look_with()
        look_with(gguf="0.0.1")
    assert len(runs.made) == 2
    assert len(kinds(project)) - records == 3, "the edit, the claim and its end"
    runs.code = 1
    look_with(gguf="0.0.2")
    assert "packages changed" in runs.made[2].why[0]
    look_with()
    assert len(runs.made) == 3, "what failed is left alone by everybody"
    Ledger(project / "ledger" / "ledger.db").leases.resume(f"run {runs.made[2].key}")
    look_with()
    assert [due.key for due in runs.made[2:]] == [runs.made[2].key] * 2, "and taken up by anybody"


@pytest.mark.parametrize("where", ["recipes/toy2.yaml", "try.yaml"])
def test_two_recipes_of_one_name_are_refused_wherever_they_would_be_run(project: Path, where: str) -> None:
    runs = Runs()
    copy = project / where
    copy.write_text((project / RECIPE).read_text().replace("epochs: 1", "epochs: 2"))
    watcher = Watcher(project, NOW, lambda _: None, runs, WHOLE)
    refusal = f"recipes/toy.yaml and {where} have one name, 'toy'"
    for recipe in (RECIPE, copy) if where.startswith("recipes") else (copy,):
        with pytest.raises(InputError, match=refusal):
            watcher.look(recipe)
        with pytest.raises(InputError, match=refusal), recompression(str(recipe), str(project)):
            pass
        with pytest.raises(InputError, match=refusal):
            forecast(project, str(recipe))
    assert (runs.made, len(kinds(project))) == ([], 1)
    copy.write_text("name: [\n")
    assert watcher.look(RECIPE).exit_code == 0, "one that cannot be read has no name"


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
    watcher = Watcher(project, settings, lambda _: None, runs, WHOLE)
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
