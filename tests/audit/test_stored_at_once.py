"""Recipes that run at once in one project store what their plans stand on at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recompress.integrity.digest import sha256_directory
from recompress.ledger import Ledger
from recompress.models.checkpoint import save
from recompress.records import ApprovalRule, PromotionPlan
from tasks.people.bundle import recall_dossier, store_dossier
from tasks.running.project import Project
from tests.audit.small_project import open_run
from tests.evidence.stories import make_dossier, make_plan
from tests.tasks.tracking.stores import new_store
from tests.tiny import tiny_checkpoint


def plans_of(root: Path) -> list[tuple[PromotionPlan, Any]]:
    """Two plans for two candidates, with what each stands on."""
    made = []
    for number in range(2):
        directory = root / "candidates" / str(number)
        save(tiny_checkpoint("text-classification", seed=number), directory)
        assert sha256_directory(directory)
        dossier = make_dossier(directory, None, str(directory))
        made.append((make_plan(dossier, directory, Project(root).registry, ApprovalRule(required=True)), dossier))
    return made


def test_one_recipe_stores_its_evidence_while_another_is_in_the_middle_of_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_store(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    Ledger(tmp_path / "ledger" / "ledger.db", create=True)
    (plan, dossier), (other_plan, other_dossier) = plans_of(tmp_path)
    assert plan.digest != other_plan.digest
    one, other = open_run(tmp_path), open_run(tmp_path)
    append = one.memory.ledger.append

    def append_later(*what: Any, **named: Any) -> Any:
        store_dossier(other, other_plan, other_dossier)
        return append(*what, **named)

    monkeypatch.setattr(one.memory.ledger, "append", append_later)
    store_dossier(one, plan, dossier)
    assert recall_dossier(one.memory, plan) == dossier
    assert recall_dossier(one.memory, other_plan) == other_dossier
