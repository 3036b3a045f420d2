"""Looks that lead to runs, or do not: one run for one change, however many look; nothing on a guess; and what was cut off is taken up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recompress.ledger import Ledger
from recompress.watch.settings import WatchSettings
from tasks.running.recompression import read_plan
from tasks.steps.rehearsal import all_found
from tasks.watch.watcher import Watcher
from tests.tasks.watch.hubs import NAME, Repository
from tests.tasks.watch.watching import NOW, RECIPE, RECIPE_PIN, Runs, kinds, look


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


def test_watching_a_recipe_whose_run_was_cut_off_or_edited_since_begins_with_a_run(project: Path) -> None:
    runs = Runs()
    watcher = Watcher(project, NOW, lambda _: None, runs, lambda *_: False)
    watcher.look(RECIPE)
    assert [due.moved for due in runs.made] == [()]
    watcher.look(RECIPE)
    assert len(runs.made) == 1
    assert not all_found(project, read_plan(str(project / RECIPE), project)), "of this project nothing is there"


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
